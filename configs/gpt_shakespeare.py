"""A small GPT on Shakespeare, byte by byte, trained in minutes on a CPU.

Paper: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), its
  architecture and initialisation at a small size; no number of the paper is reproduced.
Data: six plays that ship with vitax, the last of them (The Tempest) held out; or with
  `data=PATH` the collected works (shakespeare.txt.gz, 41 documents), the last five held out.
Expected: 3.10 bits per byte on the held-out play (measured once, seed 0).
Cost: well under 0.001 TPUv3-core-days.
Command: vitax train --config gpt_shakespeare --workdir DIR
  then vitax generate --checkpoint DIR --prompt "MACBETH."
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant

VARIANTS = ("embedded",)
LENGTH = 128
# Between two plays of the collection: what stands above a title and its author.
SEPARATOR = r"\n\n(?=[^\n]+\n\nby William Shakespeare)"


def get_config(variant: str = "embedded") -> ConfigDict:
    """``embedded``, or ``data=PATH`` of the collected works."""
    path = parse_variant(variant, "data", data="embedded")["data"]
    if path == "embedded":
        source = {"kind": "embedded_text", "name": "shakespeare"}
        train, held_out = ("[:-1]", 4_388), ("[-1:]", 770)
    else:
        source = {"kind": "text", "path": path, "separator": SEPARATOR}
        train, held_out = ("[:36]", 34_468), ("[36:]", 5_043)
    return ConfigDict(
        {
            "paper": {
                "paper": "GPT-2 (2019)",
                "row": "its architecture in small, on Shakespeare",
                "expected": {"bits per byte": 3.10},
                "core_days": None,
            },
            "model": {
                "kind": "gpt",
                "width": 128,
                "depth": 4,
                "mlp_dim": 512,
                "num_heads": 4,
                "dropout": 0.1,
            },
            "objective": {"kind": "language_model"},
            "data": {
                "source": source | {"split": train[0]},
                "num_examples": train[1],
                "length": LENGTH,
                "batch_size": 8,
            },
            "evaluators": {
                "val": {
                    "kind": "language",
                    "every": {"steps": 400},
                    "data": {"source": source | {"split": held_out[0]}, "num_examples": held_out[1], "batch_size": 64},
                }
            },
            "optimizer": {"kind": "adamw", "lr": 2e-3, "weight_decay": 0.1, "b2": 0.95, "clip_norm": 1.0},
            "schedule": {"kind": "cosine", "warmup": {"steps": 100}},
            "duration": {"steps": 1600},
            "checkpoint": {"every": {"steps": 400}},
            "log": {"every": {"steps": 50}},
            "seed": 0,
        }
    )
