"""The main job in small: pre-train big, fine-tune small, against from-scratch.

Paper: Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv:2010.11929: the recipe
  of section 4 (pre-train on a large set, replace the head, fine-tune on a small one) at
  a size that a laptop trains in minutes; no number of the paper is reproduced here.
Data: 10,000 Fashion-MNIST images to pre-train, 100 labelled UCI digits to fine-tune
  (both embedded), accuracy on 1,000 held-out digits.
Expected: fine-tuned digits at least 3 points above the same model from scratch
  (mean of 3 seeds).
Cost: well under 0.001 TPUv3-core-days.
Command: vitax quickstart, or one of
  vitax train --config quickstart:pretrain --workdir runs/pretrain
  vitax train --config quickstart:finetune --workdir runs/finetune --config.init_from.checkpoint=runs/pretrain
  vitax train --config quickstart:scratch --workdir runs/scratch
"""

from ml_collections import ConfigDict

from vitax.core.errors import pick

VARIANTS = ("pretrain", "finetune", "scratch")


def get_config(variant: str = "pretrain") -> ConfigDict:
    """``pretrain``, ``finetune`` or ``scratch``; the last two differ in ``init_from`` alone."""
    pick(dict.fromkeys(VARIANTS), variant, "Variant of quickstart")
    config = {
        "paper": {
            "paper": "arXiv:2010.11929",
            "row": "section 4 in small, embedded data",
            "expected": {"finetune minus scratch": "at least 3 points"},
            "core_days": None,
        },
        "model": {
            "kind": "vit",
            "patch_size": 7,
            "width": 96,
            "depth": 4,
            "mlp_dim": 192,
            "num_heads": 4,
            "pool": "gap",
        },
        "objective": {"kind": "classification", "mean": (0.5,), "std": (0.5,)},
        "log": {"every": {"steps": 50}},
        "seed": 0,
    }
    if variant == "pretrain":
        config |= {
            "data": {
                "source": {"kind": "embedded", "name": "fashion_mnist", "split": "train"},
                "ops": ({"kind": "random_crop", "padding": 2}, {"kind": "flip"}),
                "num_examples": 10_000,
                "num_classes": 10,
                "image_size": 28,
                "channels": 1,
                "batch_size": 64,
            },
            "evaluators": {
                "val": {
                    "kind": "classification",
                    "every": {"epochs": 2},
                    "data": {
                        "source": {"kind": "embedded", "name": "fashion_mnist", "split": "test"},
                        "num_examples": 1_000,
                        "batch_size": 250,
                    },
                }
            },
            "optimizer": {"kind": "adamw", "lr": 2e-3, "weight_decay": 0.05, "clip_norm": 1.0},
            "schedule": {"kind": "cosine", "warmup": {"fraction": 0.1}},
            "duration": {"epochs": 6},
            "checkpoint": {"every": {"epochs": 2}},
        }
    else:
        # Labels are few, so an epoch is short: length in steps.
        config |= {
            "data": {
                "source": {"kind": "embedded", "name": "digits", "split": "train", "limit": 100},
                "ops": ({"kind": "resize"}, {"kind": "random_crop", "padding": 3}),
                "num_examples": 100,
                "num_classes": 10,
                "image_size": 28,
                "channels": 1,
                "batch_size": 50,
            },
            "evaluators": {
                "val": {
                    "kind": "classification",
                    "every": {"steps": 100},
                    "data": {
                        "source": {"kind": "embedded", "name": "digits", "split": "test"},
                        "ops": ({"kind": "resize"},),
                        "num_examples": 1_000,
                        "batch_size": 250,
                    },
                }
            },
            "optimizer": {"kind": "adamw", "lr": 1e-3, "weight_decay": 0.05, "clip_norm": 1.0},
            "schedule": {"kind": "cosine", "warmup": {"steps": 20}},
            "duration": {"steps": 200},
            "checkpoint": {"every": {"steps": 200}},
        }
        config["init_from"] = {"checkpoint": "runs/quickstart/pretrain"} if variant == "finetune" else None
    return ConfigDict(config)
