"""ViT from scratch on ImageNet-1k.

Paper: Dosovitskiy et al., arXiv:2010.11929, Table 3 (settings) and Table 5 (top-1 after
  fine-tuning at 384 px).
Data: imagenet2012 of TFDS, prepared as ArrayRecord.
Not in the paper: sigmoid cross-entropy with the head bias at -6.9 (its authors' public
  notes and later code).
Expected: ImageNet top-1 in `paper.expected`; the paper states no cost of these rows.
Command: vitax train --config vit_i1k:B/16 --workdir DIR --config.data.source.data_dir=TFDS_DIR
  --config.evaluators.val.data.source.data_dir=TFDS_DIR
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import pick
from vitax.cost import vit_paper
from vitax.models import vit_sizes

EPOCHS = 300
MODELS = {model.removeprefix("ViT-"): top1 for (model, data), top1 in vit_paper.TABLE_5.items() if data == "ImageNet"}
VARIANTS = tuple(MODELS)
IMAGES = vit_paper.PRETRAINING["ImageNet"]


def get_config(variant: str = "L/16") -> ConfigDict:
    """``MODEL[,epochs=300]``, with a model of Table 5."""
    choice = parse_variant(variant, "model", model="L/16", epochs=EPOCHS)
    model, epochs = choice["model"], choice["epochs"]
    top1 = pick(MODELS, model, "model of vit_i1k")
    return ConfigDict(
        {
            "paper": {
                "paper": vit_paper.PAPER,
                "row": f"Table 3, ViT-{model} ImageNet, {epochs} epochs",
                "expected": {"imagenet top-1, Table 5": top1.imagenet2012} if epochs == EPOCHS else {},
                "core_days": None,
            },
            "model": {
                "kind": "vit",
                **vit_sizes.fields(model),
                "dropout": 0.1,
                "pre_logits": True,
                "head_bias_init": -6.9,
            },
            "objective": {"kind": "classification", "cross_entropy": "sigmoid"},
            "data": {
                "source": {"kind": "tfds", "name": "imagenet2012", "split": "train"},
                "ops": ({"kind": "decode"}, {"kind": "inception_crop"}, {"kind": "flip"}),
                "num_examples": IMAGES.num_examples,
                "num_classes": IMAGES.num_classes,
                "image_size": vit_paper.IMAGE_SIZE,
                "batch_size": 4096,
            },
            "evaluators": {
                "val": {
                    "kind": "classification",
                    "every": {"epochs": 5},
                    "data": {
                        "source": {"kind": "tfds", "name": "imagenet2012", "split": "validation"},
                        "ops": (
                            {"kind": "decode"},
                            {"kind": "resize_small", "smaller": 256},
                            {"kind": "central_crop"},
                        ),
                        "num_examples": 50_000,
                    },
                }
            },
            "optimizer": {
                "kind": "adamw",
                "lr": 3e-3,
                "weight_decay": 0.3,
                "b1": 0.9,
                "b2": 0.999,
                "clip_norm": 1.0,
            },
            "schedule": {"kind": "cosine", "warmup": {"steps": 10_000}},
            "duration": {"epochs": epochs},
            "checkpoint": {"every": {"epochs": 5}},
            "log": {"every": {"steps": 50}},
            "seed": 0,
        }
    )
