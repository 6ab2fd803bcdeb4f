"""BERT fine-tuned to answer questions with a span of a text: SQuAD 1.1 and 2.0.

Paper: Devlin et al., arXiv:1810.04805, sections 4.2 and 4.3, Tables 2 and 3.
Data: `train-v1.1.json` and `dev-v1.1.json` (or v2.0), as published; name their folder with `data=DIR`.
Start: `init_from.checkpoint`, a run of `bert_pretrain` or published weights (a Hugging Face folder of
  bert-base-uncased); the one written here is a placeholder.
In the paper: 3 epochs, rate 5e-5, batch 32 (1.1); 2 epochs, 5e-5, batch 48 (2.0). As in the authors'
  code: 384 tokens, windows 128 apart, questions of at most 64, answers of at most 30, 10% warm-up.
Differs: padding takes no part in the softmax; without an answer a window's label is `[CLS]`, as in the
  code, and the threshold of 2.0 is 0, where the paper takes the best on the development set.
Examples are windows, whose number depends on the vocabulary; where the stated one is off the run says
  the right one.
Expected: development exact match and F1 of a single model in `paper.expected`, as percentages.
Cost: about 30 minutes on a TPU chip (section 4, SQuAD 1.1).
Command: vitax train --config bert_squad:v1,data=squad --workdir DIR
  --config.init_from.checkpoint=bert-base-uncased --config.data.tokenizer.path=bert-base-uncased
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import pick
from vitax.models import bert_sizes


class Task(NamedTuple):
    """Version in the files' names, windows to train on and to evaluate (about), epochs, batch."""

    name: str
    train: int
    dev: int
    epochs: int
    batch_size: int
    threshold: float | None


TASKS = {"v1": Task("v1.1", 88_600, 10_800, 3, 32, None), "v2": Task("v2.0", 132_000, 12_200, 2, 48, 0.0)}
# Tables 2 and 3: development exact match and F1.
EXPECTED = {("v1", "base"): (80.8, 88.5), ("v1", "large"): (84.1, 90.9), ("v2", "large"): (78.7, 81.9)}
VARIANTS = ("v1", "v1,model=large", "v2,model=large")


def get_config(variant: str = "v1") -> ConfigDict:
    """``v1`` or ``v2``, then ``model=base|large``, ``lr=5e-5``, ``data=DIR``."""
    choice = parse_variant(variant, "task", task="v1", model="base", lr=5e-5, data="squad")
    name, model = choice["task"], choice["model"]
    task = pick(TASKS, name, "task of bert_squad")
    pick({"base": 0, "large": 0}, model, "model of bert_squad")
    size = bert_sizes.fields(f"BERT-{model}") | {"head": "span"}
    train, dev = ({"kind": "squad", "path": f"{choice['data']}/{part}-{task.name}.json"} for part in ("train", "dev"))
    return ConfigDict(
        {
            "paper": {
                "paper": "arXiv:1810.04805",
                "row": f"Table {'2' if name == 'v1' else '3'}, SQuAD {task.name[1:]}, BERT-{model}",
                "expected": dict(zip(("dev exact match", "dev F1"), EXPECTED.get((name, model), ()))),
                "core_days": None,
            },
            "model": {
                "kind": "bert",
                **{k: v for k, v in size.items() if k != "vocab_size"},
                "dropout": 0.1,
                "attention_dropout": 0.1,
            },
            "objective": {"kind": "span"},
            "data": {
                "source": train,
                "tokenizer": {"kind": "wordpiece", "path": "bert-base-uncased"},
                "vocab_size": bert_sizes.VOCAB_SIZE,
                "num_examples": task.train,
                "length": 384,
                "batch_size": task.batch_size,
            },
            "evaluators": {
                "val": {
                    "kind": "span",
                    "every": {"epochs": 1},
                    "null_threshold": task.threshold,
                    "data": {"source": dev, "num_examples": task.dev},
                }
            },
            "optimizer": {
                "kind": "adamw",
                "lr": choice["lr"],
                "weight_decay": 0.01,
                "decay_mask": (r"(^|/)kernel$", r"^embedding/"),
                "clip_norm": 1.0,
                "eps": 1e-6,
            },
            "schedule": {"kind": "linear", "warmup": {"fraction": 0.1}},
            "duration": {"epochs": task.epochs},
            "init_from": {"checkpoint": "bert-base-uncased", "reset": ("^head/",)},
            "checkpoint": {"every": {"epochs": 1}},
            "log": {"every": {"steps": 50}},
            "seed": 0,
        }
    )
