"""A small GPT on Shakespeare, byte by byte or in tokens of its own, trained in minutes on a CPU.

Paper: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), its
  architecture and initialisation at a small size; no number of the paper is reproduced.
Data: six plays that ship with vitax, the last of them (The Tempest) held out; or with
  `data=PATH` the collected works (shakespeare.txt.gz, 41 documents), the last five held out.
Expected: 3.10 bits per byte on the held-out play (measured once, seed 0).
Cost: well under 0.001 TPUv3-core-days.
Command: vitax train --config gpt_shakespeare --workdir DIR
  then vitax generate --checkpoint DIR --prompt "MACBETH."
Tokens: with `tokenizer=FILE` a BPE of 2,048 tokens, trained on the plays that the recipe trains on:
  vitax tokenizer train --config gpt_shakespeare --kind bpe --vocab-size 2048 --out bpe.json
  vitax train --config gpt_shakespeare:tokenizer=bpe.json --workdir DIR
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant

VARIANTS = ("embedded", "embedded,tokenizer=bpe.json")
LENGTH = 128
BPE_TOKENS = 2_048
# Windows to train on and held out, of bytes and of the BPE that the command above makes.
EMBEDDED = {"bytes": (4_388, 770), "bpe": (1_534, 306)}
WORKS = {"bytes": (34_468, 5_043), "bpe": (12_642, 1_906)}
# Between two plays of the collection: what stands above a title and its author.
SEPARATOR = r"\n\n(?=[^\n]+\n\nby William Shakespeare)"


def get_config(variant: str = "embedded") -> ConfigDict:
    """``embedded``, or ``data=PATH`` of the collected works; ``tokenizer=FILE`` of a BPE of 2,048 tokens."""
    choice = parse_variant(variant, "data", data="embedded", tokenizer="")
    kind = "bpe" if choice["tokenizer"] else "bytes"
    if choice["data"] == "embedded":
        source = {"kind": "embedded_text", "name": "shakespeare"}
        splits, windows = ("[:-1]", "[-1:]"), EMBEDDED[kind]
    else:
        source = {"kind": "text", "path": choice["data"], "separator": SEPARATOR}
        splits, windows = ("[:36]", "[36:]"), WORKS[kind]
    tokens = {"tokenizer": {"kind": "bytes"}, "vocab_size": 257}
    if kind == "bpe":
        tokens = {"tokenizer": {"kind": "bpe", "path": choice["tokenizer"]}, "vocab_size": BPE_TOKENS}
    return ConfigDict(
        {
            "paper": {
                "paper": "GPT-2 (2019)",
                "row": "its architecture in small, on Shakespeare",
                "expected": {"bits per byte": 3.10} if variant == "embedded" else {},
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
                "source": source | {"split": splits[0]},
                "num_examples": windows[0],
                "length": LENGTH,
                **tokens,
                "batch_size": 8,
            },
            "evaluators": {
                "val": {
                    "kind": "language",
                    "every": {"steps": 400},
                    "data": {"source": source | {"split": splits[1]}, "num_examples": windows[1], "batch_size": 64},
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
