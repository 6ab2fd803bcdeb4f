"""The ledger for a person: one line at the end of a run, a table on request."""

from collections.abc import Mapping
from typing import Any


def duration(seconds: float) -> str:
    """``45.2 s``, ``12.3 min`` or ``7.5 h``."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def line(account: Mapping[str, Any]) -> str:
    """The cost of a run so far, in one line."""
    source = account["tpu_v3_core_days_source"]
    words = [
        f"cost: {duration(account['wall_seconds'])} wall",
        f"{account['goodput']:.0%} productive",
        f"{account['model_flops']:.3g} model FLOPs",
        f"{account['tpu_v3_core_days']:.3g} TPUv3-core-days ({source})",
        "price unknown" if account["usd"] is None else f"{_usd(account['usd'])} ({account['usd_source']})",
    ]
    return ", ".join(words)


def parts(account: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(name, seconds, fraction of the wall time) of every part."""
    wall = account["wall_seconds"] or 1.0
    return [(name, seconds, seconds / wall) for name, seconds in account["seconds"].items()]


def rows(account: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values, without the parts of the wall time."""
    starts, back = account["starts"], account["rolled_back_steps"]
    hours = ", ".join(f"{h:.3g} h on {kind}" for kind, h in account["device_hours"].items())
    price = "" if account["usd"] is None else f"{_usd(account['usd'])} "
    found = [
        ("steps", f"{account['steps']} in {starts} start{'s' if starts > 1 else ''}, {back} rolled back"),
        ("examples", f"{account['examples']:,}, {account['examples_per_second']:.1f} a second"),
        ("wall time", f"{duration(account['wall_seconds'])}, goodput {account['goodput']:.1%} (productive / wall)"),
        ("model FLOPs", f"{account['model_flops']:.4g}"),
        ("executed FLOPs", "unknown" if account["executed_flops"] is None else f"{account['executed_flops']:.4g}"),
        ("MFU", _percent(account["mfu"])),
        ("HFU", _percent(account["hfu"])),
        ("device-hours", hours),
        ("dollars", f"{price}({account['usd_source']})"),
        ("TPUv3-core-days", f"{account['tpu_v3_core_days']:.3g} ({account['tpu_v3_core_days_source']})"),
    ]
    paper = account["paper"]
    if paper:
        days = "no core-days published" if paper["core_days"] is None else f"{paper['core_days']:g} TPUv3-core-days"
        found.append(("paper", f"{days} ({', '.join(p for p in (paper['paper'], paper['row']) if p)})"))
    return found


def lines(account: Mapping[str, Any]) -> list[str]:
    """The whole ledger as a table."""
    shown = []
    for name, text in rows(account):
        shown.append(f"{name:<19}{text}")
        if name == "wall time":
            shown += [f"  {part:<17}{s:>10.1f} s {f:>7.1%}" for part, s, f in parts(account) if s]
    return shown


def _percent(fraction: float | None) -> str:
    return "unknown for this device" if fraction is None else f"{fraction:.1%}"


def _usd(usd: float) -> str:
    return f"${usd:,.2f}" if usd >= 0.01 else f"${usd:.2g}"
