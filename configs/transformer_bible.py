"""A small Transformer from English to French on the New Testament, trained in minutes on a CPU.

Paper: Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, its architecture at a
  small size (norms before the branches, which need no long warm-up); no number of the
  paper is reproduced.
Data: 7,957 verses that ship with vitax, the World English Bible and Louis Segond's, with a
  BPE of both languages together; the last 300 verses (of Revelation) held out.
Expected: perplexity 37.0 and BLEU 7.6 on the held-out verses (measured once, seed 0).
Cost: well under 0.001 TPUv3-core-days.
Command: vitax train --config transformer_bible --workdir DIR
  then vitax generate --checkpoint DIR --source "In the beginning was the Word."
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant

VARIANTS = ("embedded",)
NAME = "new_testament_en_fr"


def get_config(variant: str = "embedded") -> ConfigDict:
    """``embedded``, the one there is."""
    parse_variant(variant, "data", data="embedded")
    source = {"kind": "embedded_pairs", "name": NAME}
    held_out = {"source": source | {"split": "[-300:]"}, "num_examples": 116}
    return ConfigDict(
        {
            "paper": {
                "paper": "arXiv:1706.03762",
                "row": "its architecture in small, on the New Testament",
                "expected": {"BLEU": 7.6},
                "core_days": None,
            },
            "model": {
                "kind": "transformer",
                "width": 128,
                "depth": 2,
                "mlp_dim": 384,
                "num_heads": 4,
                "norm": "pre",
                "dropout": 0.1,
            },
            "objective": {"kind": "translation", "label_smoothing": 0.1},
            "data": {
                "source": source | {"split": "[:-300]"},
                "num_examples": 2_184,
                "length": 128,
                "tokenizer": {"kind": "bpe", "path": f"embedded:{NAME}"},
                "vocab_size": 4_096,
                "batch_size": 8,
            },
            "evaluators": {
                "val": {"kind": "language", "every": {"epochs": 1}, "data": held_out | {"batch_size": 16}},
                "test": {"kind": "bleu", "every": {"fraction": 1.0}, "data": held_out | {"batch_size": 64}},
            },
            "optimizer": {"kind": "adamw", "lr": 2e-3, "b2": 0.98, "eps": 1e-9, "weight_decay": 0.0},
            "schedule": {"kind": "rsqrt", "timescale": 300, "warmup": {"steps": 300}, "cooldown": {"fraction": 0.3}},
            "duration": {"epochs": 5},
            "checkpoint": {"every": {"epochs": 1}},
            "log": {"every": {"steps": 50}},
            "seed": 0,
        }
    )
