"""A small BERT on the Bible: pre-trained on its chapters, then told whether two verses are the same.

Paper: Devlin et al., arXiv:1810.04805, sections 3.1 (masked tokens and next sentences) and 3.2
  (fine-tuning) in small; no number of the paper is reproduced.
Data: by default what ships with vitax, the New Testament of the World English Bible to pre-train
  and the Gospels, also in the King James Version, to fine-tune; `data=DIR` takes whole Bibles,
  `en_web.txt.gz` and `en_kjv.txt.gz`, 31,102 verses each, one a line. Every tenth chapter is held
  out of both. A pair is a verse of the King James Version with the same of the World English
  Bible, or with that one of the 16 verses around which shares most words with it.
Tokens: WordPiece, 3,000 of them, learned on the training part of the New Testament.
Expected: with `data=DIR`, over three seeds of the fine-tuning, 78.6% of the held-out pairs (78.4 to
  78.9) from the pre-trained model and 60.7% (59.5 to 61.9) from scratch; the pre-training alone
  ends at 42.1% of the masked tokens and 74.2% of the next sentences. One threshold on the share of
  common words tells 94.6% apart, and 97.6% of the embedded pairs: a rule that small models are
  slow to find.
Cost: well under 0.001 TPUv3-core-days.
Command:
  vitax train --config bert_bible:pretrain --workdir runs/bert
  vitax train --config bert_bible:finetune --workdir runs/same --config.init_from.checkpoint=runs/bert
  vitax train --config bert_bible:scratch --workdir runs/scratch
  python benchmarks/bert_paraphrase.py trains all of it over three seeds.
"""

from typing import Any

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import pick

VARIANTS = ("pretrain", "finetune", "scratch")
LENGTH = 64
# Chunks of chapters to train on and held out; pairs of verses held out.
CHUNKS = {"embedded": (2_787, 317), "whole": (12_421, 1_350)}
TESTED = {"embedded": 416, "whole": 3_028}
# Labelled pairs to fine-tune on.
LABELLED = {"embedded": 3_000, "whole": 8_000}


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
                "width": 96,
                "depth": 2,
                "mlp_dim": 384,
                "num_heads": 3,
                "context": LENGTH,
                "head": "pretraining" if role == "pretrain" else "classification",
            },
            **(
                _pretraining(web, CHUNKS[size])
                if role == "pretrain"
                else _pairs(kjv, web, LABELLED[size], TESTED[size])
            ),
            "init_from": {"checkpoint": "runs/bert_bible/pretrain", "reset": ("^head/",)}
            if role == "finetune"
            else None,
            "seed": 0,
        }
    )


def _tokens() -> dict[str, Any]:
    return {
        "vocab_size": 3_000,
        "tokenizer": {"kind": "wordpiece", "path": "embedded:new_testament"},
        "length": LENGTH,
    }


def _pretraining(web: str, chunks: tuple[int, int]) -> dict[str, Any]:
    source = {"kind": "bible_chapters", "path": web}
    return {
        "objective": {"kind": "masked_language_model"},
        "data": {
            "source": source | {"part": "train"},
            "num_examples": chunks[0],
            **_tokens(),
            "max_predictions": 10,
            "batch_size": 32,
        },
        "evaluators": {
            "val": {
                "kind": "masked_language",
                "every": {"fraction": 0.25},
                "data": {"source": source | {"part": "test"}, "num_examples": chunks[1], "batch_size": 128},
            }
        },
        "optimizer": {"kind": "adamw", "lr": 2e-3, "weight_decay": 0.01, "clip_norm": 1.0},
        "schedule": {"kind": "linear", "warmup": {"fraction": 0.1}},
        "duration": {"steps": 10_000},
        "checkpoint": {"every": {"fraction": 0.25}},
        "log": {"every": {"steps": 100}},
    }


def _pairs(kjv: str, web: str, labelled: int, tested: int) -> dict[str, Any]:
    source = {"kind": "verse_pairs", "first_path": kjv, "second_path": web}
    return {
        "objective": {"kind": "text_classification"},
        "data": {
            "source": source | {"part": "train", "limit": labelled},
            "num_examples": labelled,
            **_tokens(),
            "num_classes": 2,
            "batch_size": 32,
        },
        "evaluators": {
            "val": {
                "kind": "text_classification",
                "every": {"fraction": 0.25},
                "data": {"source": source | {"part": "test"}, "num_examples": tested, "batch_size": 128},
            }
        },
        "optimizer": {"kind": "adamw", "lr": 5e-4, "weight_decay": 0.01, "clip_norm": 1.0},
        "schedule": {"kind": "linear", "warmup": {"fraction": 0.1}},
        "duration": {"epochs": 3},
        "checkpoint": {"every": {"fraction": 1.0}},
        "log": {"every": {"steps": 25}},
    }
