"""A small Transformer from English to German on Multi30k's captions, trained on a CPU.

Paper: Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, its architecture at a
  small size (norms before the branches, which need no long warm-up).
Data: Multi30k (29,000 captions of images with their translations), which vitax may not ship:
  a folder with `train.en.gz`, `train.de.gz`, `val.*` and `test_2016_flickr.*`, and a BPE of
  both languages together that `vitax tokenizer train` makes of the training files.
Expected: BLEU 37.7 on test_2016_flickr (sacrebleu, 13a, cased, detokenised; measured once, seed 0):
  36 minutes on 2 CPU cores that others used too for a third of it; 36.4 after 30 minutes.
Cost: well under 0.01 TPUv3-core-days.
Command:
  vitax tokenizer train DATA/train.en.gz DATA/train.de.gz --kind bpe --vocab-size 6000 --out bpe.json
  vitax train --config transformer_multi30k:data=DATA,tokenizer=bpe.json --workdir DIR
  vitax generate --checkpoint DIR --source "Two dogs are playing in the snow."
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant

VARIANTS = ("data=DATA,tokenizer=bpe.json",)
LENGTH = 64


def get_config(variant: str = "") -> ConfigDict:
    """``data=DIR,tokenizer=FILE``."""
    choice = parse_variant(variant, "data", data="multi30k", tokenizer="bpe.json")

    def source(split: str) -> dict[str, str]:
        stem = f"{choice['data']}/{split}"
        return {"kind": "parallel", "source_path": f"{stem}.en.gz", "target_path": f"{stem}.de.gz"}

    return ConfigDict(
        {
            "paper": {
                "paper": "arXiv:1706.03762",
                "row": "its architecture in small, on Multi30k",
                "expected": {"BLEU": 37.7},
                "core_days": None,
            },
            "model": {
                "kind": "transformer",
                "width": 256,
                "depth": 3,
                "mlp_dim": 768,
                "num_heads": 4,
                "norm": "pre",
                "dropout": 0.15,
            },
            "objective": {"kind": "translation", "label_smoothing": 0.1},
            "data": {
                "source": source("train"),
                "num_examples": 7_853,
                "length": LENGTH,
                "tokenizer": {"kind": "bpe", "path": choice["tokenizer"]},
                "vocab_size": 6_000,
                "batch_size": 16,
            },
            "evaluators": {
                "val": {
                    "kind": "language",
                    "every": {"epochs": 1},
                    "data": {"source": source("val"), "num_examples": 282},
                },
                "test": {
                    "kind": "bleu",
                    "every": {"fraction": 0.5},
                    "data": {"source": source("test_2016_flickr"), "num_examples": 266, "batch_size": 64},
                },
            },
            "optimizer": {"kind": "adamw", "lr": 1.5e-3, "b2": 0.98, "eps": 1e-9, "weight_decay": 0.0},
            "schedule": {"kind": "rsqrt", "timescale": 1000, "warmup": {"steps": 1000}, "cooldown": {"fraction": 0.3}},
            "duration": {"epochs": 9},
            "checkpoint": {"every": {"epochs": 1}},
            "log": {"every": {"steps": 50}},
            "seed": 0,
        }
    )
