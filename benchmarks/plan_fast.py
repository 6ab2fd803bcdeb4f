"""How far ``vitax plan --fast`` is from the TPU compiler: memory of ten plans, both ways.

    python benchmarks/plan_fast.py [--json] [--only 3]

Ten ViT steps over sizes, chips, shardings, remat and microbatches. For each: bytes a
core by arithmetic and by the compiler (arguments and temporaries), and their ratio.
Needs the extra ``plan``; about ten minutes on two cores.
"""

import argparse
import json
import sys

from vitax import plan, recipe
from vitax.cost.topology import Topology

FSDP = ("--config.mesh.data=1", "--config.mesh.fsdp=-1")
SCAN = ("--config.unroll=False",)
FULL = ("--config.remat=full",)
PLANS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("vit_jft:B/16", "v3:4x4", ("--config.data.batch_size=1024",)),
    ("vit_jft:B/16", "v3:4x4", ("--config.data.batch_size=1024", *FSDP)),
    ("vit_jft:B/16", "v3:4x4", ("--config.accumulate=4",)),
    ("vit_jft:B/32", "v3:4x4", ()),
    ("vit_jft:L/16", "v3:8x8", ()),
    ("vit_jft:L/16", "v3:8x8", FSDP),
    ("vit_jft:L/16", "v3:8x8", (*FSDP, *FULL, *SCAN)),
    ("vit_jft:L/16", "v4:4x4x2", FULL),
    ("vit_jft:L/32", "v5e:8x8", ()),
    ("vit_jft:H/14", "v3:8x16", (*FSDP, *FULL, *SCAN)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", type=int, help="one of the plans, from 0")
    args = parser.parse_args()
    rows = []
    for config, topology, overrides in PLANS if args.only is None else PLANS[args.only : args.only + 1]:
        checked, where = recipe.load(config, list(overrides)), Topology.parse(topology)
        fast = plan.plan(checked, where, fast=True)
        made = plan.plan(checked, where)
        short = " ".join(o.removeprefix("--config.") for o in overrides) or "-"
        row = {
            "plan": f"{config} {topology} {short}",
            "fast_bytes": fast["hbm_bytes_per_core"],
            "compiler_bytes": made["hbm_bytes_per_core"],
            "ratio": fast["hbm_bytes_per_core"] / made["hbm_bytes_per_core"],
        }
        rows.append(row)
        sizes = "  ".join(f"{row[k] / 1e9:6.2f} GB" for k in ("fast_bytes", "compiler_bytes"))
        text = f"{row['ratio']:.3f}  {sizes}  {row['plan']}"
        print(text, file=sys.stderr if args.json else sys.stdout, flush=True)
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
