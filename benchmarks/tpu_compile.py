"""The train step by the TPU compiler's own account, on a machine without a TPU.

    python benchmarks/tpu_compile.py [--json]
    python benchmarks/tpu_compile.py --config vit_jft:H/14 --topology v3:8x16 --sharding fsdp \
        --config.remat=full --config.unroll=False

By default ViT-B/16 on v3:4x4 with 1024 images and ViT-L/16 on v3:8x8 with 4096, each
data-parallel and with FSDP: bfloat16 activations, float32 parameters, Adam with a
bfloat16 first moment, 1000 classes, no dropout, no remat, unrolled. Beside each stands
what other code bases get from the same compiler (libtpu 0.0.52, data-parallel).

``ms`` is the compiler's estimate of a step, a cost model and no clock: it compares
programs well, leaves the network out, and exists on v2, v3 and v5p for unrolled steps
alone (null elsewhere). With ``--config.model.attention_kernel=pallas`` it is null too, and
``self_declared_ms`` stands beside it: the same figure, with the word of the kernel's author
for the kernel's part. ``roofline_ms`` is ours, op by op, and always there. Needs the
extra ``plan``; about a minute a row on two cores.
"""

import argparse
import json
import sys
from typing import Any

from vitax import plan, recipe
from vitax.cost.topology import Topology

COMMON = (
    "--config.model.pre_logits=False",
    "--config.data.num_classes=1000",
    "--config.optimizer.mu_dtype=bfloat16",
)
# recipe, topology, batch
DEFAULT = (("vit_jft:B/16", "v3:4x4", 1024), ("vit_jft:L/16", "v3:8x8", 4096))
MESHES = {"dp": {"data": -1, "fsdp": 1}, "fsdp": {"data": 1, "fsdp": -1}}
# ms of a data-parallel step at the default settings, compiled from their public code.
OTHERS = {
    "vit_jft:B/16": {"big_vision": 76.9, "scenic": 79.9, "vision_transformer": 92.1},
    "vit_jft:L/16": {"big_vision": 253.9},
}


def measure(config: str, topology: str, batch: int | None, sharding: str, overrides: list[str]) -> dict[str, Any]:
    """One row: compiles the step of a recipe."""
    mesh = [f"--config.mesh.{axis}={n}" for axis, n in MESHES[sharding].items()]
    size = [f"--config.data.batch_size={batch}"] if batch else []
    checked = recipe.load(config, [*mesh, *size, *overrides])
    made = plan.plan(checked, Topology.parse(topology))

    def ms(seconds: float | None) -> float | None:
        return None if seconds is None else 1e3 * seconds

    return {
        "model": config,
        "topology": topology,
        "global_batch": checked.data.batch_size,
        "sharding": sharding,
        "remat": made["remat"],
        "unroll": made["unroll"],
        "ms": ms(made["compiler_step_seconds"]),
        "self_declared_ms": ms(made["self_declared_step_seconds"]),
        "bytes": made["bytes_per_core"],
        "hbm_bytes": made["hbm_bytes_per_core"],
        "compile_seconds": made["compile_seconds"],
        "roofline_ms": ms(made["roofline_step_seconds"]),
        "limit_ms": ms(made["compute_seconds"]),
        "temporary_bytes": made["hbm_split_bytes"].get("activations", 0) + made["hbm_split_bytes"]["temporaries"],
        "fits": made["fits"],
    }


def line(row: dict[str, Any]) -> str:
    """A row for a person."""

    def number(value: float | None, scale: float = 1.0) -> str:
        return "-" if value is None else f"{value / scale:.1f}"

    what = f"{row['model']:<14}{row['topology']:<9}{row['global_batch']:>6}  {row['sharding']:<5}{row['remat']:<7}"
    cells = (
        *(number(row[k]) for k in ("ms", "self_declared_ms", "roofline_ms", "limit_ms")),
        *(number(row[k], 1e9) for k in ("bytes", "hbm_bytes", "temporary_bytes")),
        number(row["compile_seconds"]),
    )
    return what + f"{'unroll' if row['unroll'] else 'scan':<7}" + "".join(f"{c:>9}" for c in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="a recipe, in place of the default two; overrides as for vitax train")
    parser.add_argument("--topology", default="v3:8x8")
    parser.add_argument("--batch", type=int, help="examples a step (the recipe's by default)")
    parser.add_argument("--sharding", choices=(*MESHES, "both"), default="both")
    parser.add_argument("--json", action="store_true")
    args, overrides = parser.parse_known_args()
    jobs = [(args.config, args.topology, args.batch)] if args.config else DEFAULT
    extra = overrides if args.config else [*COMMON, *overrides]
    shardings = tuple(MESHES) if args.sharding == "both" else (args.sharding,)
    rows = []
    if not args.json:
        names = ("ms", "declared", "roofline", "limit", "GB moved", "HBM GB", "temp GB", "compile s")
        print(" " * 50 + "".join(f"{n:>9}" for n in names))
    for config, topology, batch in jobs:
        for sharding in shardings:
            rows.append(measure(config, topology, batch, sharding, list(extra)))
            print(line(rows[-1]), file=sys.stderr if args.json else sys.stdout, flush=True)
        others = OTHERS.get(config, {}) if not args.config else {}
        for name, ms in others.items():
            text = f"  {name}: {ms} ms ({ms / rows[-len(shardings)]['ms']:.2f}x of the first row above)"
            print(text, file=sys.stderr if args.json else sys.stdout, flush=True)
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
