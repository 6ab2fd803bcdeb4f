"""A plan for a person: lines of text from the plain data of ``vitax.plan``."""

from collections.abc import Mapping
from typing import Any

from vitax.cost.roofline import KNOWN_ERROR
from vitax.train.terminal import count, size

SOURCES = {
    "compiler": "the compiler's own estimate (no network, no input, no host)",
    "roofline": f"op-by-op roofline (within {KNOWN_ERROR:.1%} of the compiler's on v2 and v3, else not calibrated)",
    "mfu": "model FLOPs at the stated MFU",
}


def lines(plan: Mapping[str, Any]) -> list[str]:
    """The plan as a table."""
    mesh = " x ".join(f"{k} {v}" for k, v in plan["mesh"].items()) or "1 device"
    used, limit = plan["hbm_bytes_per_core"], plan["hbm_limit_bytes"]
    verdict = (
        f"FITS, {size(limit - used)} to spare of {size(limit)}"
        if plan["fits"]
        else f"DOES NOT FIT: {size(plan['missing_bytes'])} missing; a core has {size(limit)}"
    )
    split = ", ".join(f"{k} {size(v)}" for k, v in plan["hbm_split_bytes"].items() if v)
    depth = "unrolled" if plan["unroll"] else "scanned"
    step = f"batch {plan['batch_size']} in {plan['accumulate']} microbatch(es), remat {plan['remat']}, {depth}"
    step += f"; {plan['steps']:,} steps"
    moved = _known(plan["bytes_per_core"], size)
    work = f"{_known(plan['flops_per_core'], count)} executed a core and step, {moved} moved"
    rows = [
        ("recipe", plan["row"] or plan["model"]),
        ("topology", f"{plan['topology']}: {plan['chips']} chips, {plan['devices']} devices, mesh {mesh}"),
        ("step", step),
        ("memory", f"{verdict}; {size(used)} a core used"),
        ("", split),
        ("FLOPs", work),
    ]
    if plan["collectives"] is not None:
        found = ", ".join(f"{r['count']} {kind} ({size(r['bytes'])})" for kind, r in plan["collectives"].items())
        rows.append(("collectives", found or "none"))
        parts = (("compute", "compute_seconds"), ("memory", "memory_seconds"), ("network", "network_seconds"))
        rows.append(("limits", ", ".join(f"{name} {_known(plan[key], _ms)}" for name, key in parts)))
    rows += [(f"by {name}", _time(plan, name)) for name in SOURCES]
    rows.append(("bill", _bill(plan)))
    if plan["published_core_days"]:
        rows.append(("published", f"{plan['published_core_days']:,} TPUv3-core-days for {plan['row']}"))
    if plan["core_days_source"] != "mfu":
        rows.append(
            (
                "note",
                "an estimate of the step alone is a lower bound: ViT's own L/16 run took 1.8 times it",
            )
        )
    if plan["compile_seconds"] is None:
        rows.append(
            ("note", "by arithmetic alone (--fast): memory within 20% for ViT with none or full remat, else rough")
        )
    else:
        rows.append(("compiled in", f"{plan['compile_seconds']:.1f} s"))
    return [f"{name:<12} {text}" for name, text in rows]


def _time(plan: Mapping[str, Any], name: str) -> str:
    seconds = {
        "compiler": plan["compiler_step_seconds"],
        "roofline": plan["roofline_step_seconds"],
        "mfu": plan["mfu_step_seconds"],
    }[name]
    if seconds is None and plan["roofline_step_seconds"] is None:
        return "unavailable: nothing compiled"
    if seconds is None:
        declared = plan["self_declared_step_seconds"]
        taken = f"; {_ms(declared)} a step if hand-written kernels cost what they declare" if declared else ""
        return "unavailable: not stated for this chip, for loops or for hand-written kernels" + taken
    chosen = "* " if plan["core_days_source"] == name else ""
    what = SOURCES[name] + (f" of {plan['mfu']:.0%}" if name == "mfu" else "")
    hours = seconds * plan["steps"] / 3600
    return f"{chosen}{_ms(seconds)} a step, {hours:,.1f} h, {plan['core_days_by_source'][name]:,.4g} core-days: {what}"


def _bill(plan: Mapping[str, Any]) -> str:
    text = f"{plan['hours']:,.1f} h, {plan['core_days']:,.4g} core-days (by {plan['core_days_source']})"
    if plan["tpu_v3_core_days_source"] != "of this plan":
        text += f"; {plan['tpu_v3_core_days']:,.4g} TPUv3-core-days {plan['tpu_v3_core_days_source']}"
    if plan["usd"] is not None:
        text += (
            f"; {plan['usd']:,.0f} USD at {plan['usd_per_chip_hour']} a chip-hour "
            f"(list price of {plan['prices_as_of']}, indicative)"
        )
    return text


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.4g} ms"


def _known(value: Any, spell: Any) -> str:
    return "unknown" if value is None else spell(value)


def search_lines(found: Mapping[str, Any]) -> list[str]:
    """The table of a search, cheapest first, and the overrides to paste."""
    head = (
        f"{'fits':<6}{'HBM a core':>11}{'step':>10}{'core-days':>11}  {'by':<12}"
        f"{'mesh':<24}{'accumulate':>10}  {'remat':<24}{'depth':<9}"
    )
    rows = [head]
    for row in found["candidates"]:
        mesh = " x ".join(f"{k} {v}" for k, v in row["mesh"].items()) or "1 device"
        fits = {True: "yes", False: "no"}[row["fits"]] + ("?" if row["source"] == "arithmetic" else "")
        rows.append(
            f"{fits:<6}{size(row['hbm_bytes_per_core']):>11}{_ms(row['step_seconds']):>10}{row['core_days']:>11,.4g}  "
            f"{row['source']:<12}{mesh:<24}{row['accumulate']:>10}  {row['remat']:<24}"
            f"{'unrolled' if row['unroll'] else 'scanned':<9}"
        )
    rows.append(f"{found['considered']} settings considered, {found['pruned']} pruned by arithmetic.")
    rows.append(found["error"])
    if found["best"]:
        rows.append("Best that fits:")
        rows.append("  " + " ".join(found["best"]))
    else:
        rows.append("None fits: take more chips, a smaller batch or a smaller model.")
    return rows
