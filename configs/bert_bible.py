"""A small BERT on the Bible: pre-trained on its chapters, then told whether two verses are the same.

Paper: Devlin et al., arXiv:1810.04805, sections 3.1 (masked tokens and next sentences) and 3.2
  (fine-tuning) in small; no number of the paper is reproduced.
Data: by default what ships with vitax, the New Testament of the World English Bible to pre-train
  and the Gospels, also in the King James Version, to fine-tune; `data=DIR` takes whole Bibles,
  `en_web.txt.gz` and `en_kjv.txt.gz`, 31,102 verses each, one a line. Every tenth chapter is held
  out of both. A pair is a verse of the King James Version with the same of the World English
  Bible, or with that one of the 16 verses around which shares most words with it.
Tokens: WordPiece, 3,000 of them, learned on the training part of the New Testament.
Expected: {expected}
Cost: well under 0.001 TPUv3-core-days.
Command:
  vitax train --config bert_bible:pretrain --workdir runs/bert
  vitax train --config bert_bible:finetune --workdir runs/same --config.init_from.checkpoint=runs/bert
  vitax train --config bert_bible:scratch --workdir runs/scratch
  python benchmarks/bert_paraphrase.py trains all of it over three seeds.
"""

import importlib.resources
from typing import Any

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import pick

VARIANTS = ("pretrain", "finetune", "scratch")
LENGTH = 128
# Of the part to train on and the part that is held out: chunks of chapters, pairs of verses.
CHUNKS = {"embedded": (1_578, 181), "whole": (7_179, 778)}
PAIRS = {"embedded": (3_363, 416), "whole": (28_074, 3_028)}
# Labelled pairs to fine-tune on, and how often.
LABELLED, EPOCHS = 2_000, 8


def get_config(variant: str = "pretrain") -> ConfigDict:
    """``pretrain``, ``finetune`` or ``scratch`` (which differ in ``init_from`` alone), then ``data=DIR``."""
    choice = parse_variant(variant, "role", role="pretrain", data="")
    role, folder = choice["role"], choice["data"]
    pick(dict.fromkeys(VARIANTS), role, "role of bert_bible")
    size = "whole" if folder else "embedded"
    web, kjv = (f"{folder}/en_{name}.txt.gz" if folder else "" for name in ("web", "kjv"))
    return ConfigDict(
        {
            "paper": {
                "paper": "arXiv:1810.04805",
                "row": f"sections 3.1 and 3.2 in small, {role}",
                "expected": {},
                "core_days": None,
            },
            "model": {
                "kind": "bert",
                "width": 128,
                "depth": 4,
                "mlp_dim": 512,
                "num_heads": 4,
                "context": LENGTH,
                "head": "pretraining" if role == "pretrain" else "classification",
                "dropout": 0.1,
            },
            **(_pretraining(web, CHUNKS[size]) if role == "pretrain" else _pairs(kjv, web, PAIRS[size])),
            "init_from": {"checkpoint": "runs/bert_bible/pretrain", "reset": ("^head/",)}
            if role == "finetune"
            else None,
            "seed": 0,
        }
    )


def _tokens() -> dict[str, Any]:
    path = importlib.resources.files("vitax.data.embedded") / "new_testament_vocab.txt"
    return {"vocab_size": 3_000, "tokenizer": {"kind": "wordpiece", "path": str(path)}, "length": LENGTH}


def _pretraining(web: str, chunks: tuple[int, int]) -> dict[str, Any]:
    source = {"kind": "bible_chapters", "path": web}
    return {
        "objective": {"kind": "masked_language_model"},
        "data": {
            "source": source | {"part": "train"},
            "num_examples": chunks[0],
            **_tokens(),
            "max_predictions": 20,
            "batch_size": 32,
        },
        "evaluators": {
            "val": {
                "kind": "masked_language",
                "every": {"fraction": 0.25},
                "data": {"source": source | {"part": "test"}, "num_examples": chunks[1], "batch_size": 64},
            }
        },
        "optimizer": {"kind": "adamw", "lr": 1e-3, "weight_decay": 0.01, "clip_norm": 1.0},
        "schedule": {"kind": "linear", "warmup": {"fraction": 0.1}},
        "duration": {"steps": 1_500},
        "checkpoint": {"every": {"fraction": 0.25}},
        "log": {"every": {"steps": 50}},
    }


def _pairs(kjv: str, web: str, pairs: tuple[int, int]) -> dict[str, Any]:
    source = {"kind": "verse_pairs", "first": kjv, "second": web}
    return {
        "objective": {"kind": "text_classification"},
        "data": {
            "source": source | {"part": "train", "limit": LABELLED},
            "num_examples": LABELLED,
            **_tokens(),
            "num_classes": 2,
            "batch_size": 32,
        },
        "evaluators": {
            "val": {
                "kind": "text_classification",
                "every": {"fraction": 0.25},
                "data": {"source": source | {"part": "test"}, "num_examples": pairs[1], "batch_size": 64},
            }
        },
        "optimizer": {"kind": "adamw", "lr": 3e-4, "weight_decay": 0.01, "clip_norm": 1.0},
        "schedule": {"kind": "linear", "warmup": {"fraction": 0.1}},
        "duration": {"epochs": EPOCHS},
        "checkpoint": {"every": {"fraction": 0.5}},
        "log": {"every": {"steps": 25}},
    }
