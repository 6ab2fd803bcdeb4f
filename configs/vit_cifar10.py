"""ViT from scratch on CIFAR-10 kept as a folder of class folders.

No number of the paper (it fine-tunes on CIFAR-10, Table 5): a recipe that a CPU or a
small GPU finishes, with the augmentation that small data needs.
Data: train/CLASS/*.jpg and test/CLASS/*.jpg, 50,000 + 10,000 images of 32 x 32.
Command: vitax train --config vit_cifar10:DIR --workdir runs/cifar10
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant

VARIANTS = ("cifar10",)


def get_config(variant: str = "cifar10") -> ConfigDict:
    """The variant is the folder that holds ``train`` and ``test``, then ``epochs=N``."""
    choice = parse_variant(variant, "folder", folder="cifar10", epochs=30)
    source = {"kind": "folder", "path": choice["folder"]}
    return ConfigDict(
        {
            "paper": {"paper": "arXiv:2010.11929", "row": "CIFAR-10 from scratch, not in the paper"},
            "model": {
                "kind": "vit",
                "patch_size": 4,
                "width": 128,
                "depth": 6,
                "mlp_dim": 256,
                "num_heads": 4,
                "pool": "gap",
            },
            "objective": {"kind": "classification", "label_smoothing": 0.1},
            "data": {
                "source": source | {"split": "train"},
                "ops": ({"kind": "decode"}, {"kind": "random_crop", "padding": 4}, {"kind": "flip"}),
                "num_examples": 50_000,
                "num_classes": 10,
                "image_size": 32,
                "batch_size": 128,
            },
            "evaluators": {
                "val": {
                    "kind": "classification",
                    "every": {"epochs": 1},
                    "data": {
                        "source": source | {"split": "test"},
                        "ops": ({"kind": "decode"},),
                        "num_examples": 10_000,
                        "batch_size": 500,
                    },
                }
            },
            "optimizer": {"kind": "adamw", "lr": 2e-3, "weight_decay": 0.05, "clip_norm": 1.0},
            "schedule": {"kind": "cosine", "warmup": {"epochs": 1}},
            "duration": {"epochs": choice["epochs"]},
            "checkpoint": {"every": {"epochs": 1}},
            "log": {"every": {"steps": 50}},
            "seed": 0,
        }
    )
