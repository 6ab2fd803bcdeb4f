"""EfficientNet B0 to B7 on ImageNet-1k, and the network L2 of Noisy Student without its extra images.

Paper: Tan and Le, arXiv:1905.11946, section 5.2 (settings) and Table 2 (top-1).
Data: imagenet2012 of TFDS, prepared as ArrayRecord.
Not as in the paper: RandAugment (arXiv:1909.13719) in place of AutoAugment, its successor by
  the same group; magnitudes are that paper's for B5 and B7 and for ResNet-50 (here B0 to B4),
  Noisy Student's for L2. No minival of 25k images is held out to stop early.
Not in the paper but in its authors' code: batch 4096 (the rate is 0.016 for 256 images), 350
  epochs, warm-up of 5, label smoothing 0.1, averages of 0.9999, bicubic resizing with a border
  of 32 pixels, weight decay on all but norms.
Expected: ImageNet top-1 in `paper.expected`; the paper states no cost. L2 alone has no row: Noisy
  Student trains it with 130M unlabelled images besides.
Command: vitax train --config efficientnet_i1k:B0 --workdir DIR --config.data.source.data_dir=TFDS_DIR
  --config.evaluators.val.data.source.data_dir=TFDS_DIR
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import pick
from vitax.cost import vit_paper
from vitax.models import efficientnet_sizes

EPOCHS = 350
# Top-1 of arXiv:1905.11946, Table 2, and the magnitude of RandAugment.
TOP1 = {"B0": 77.1, "B1": 79.1, "B2": 80.1, "B3": 81.6, "B4": 82.9, "B5": 83.6, "B6": 84.0, "B7": 84.3}
MAGNITUDE = {"B5": 17, "B6": 17, "B7": 28, "L2": 27}
VARIANTS = tuple(efficientnet_sizes.SIZES)
IMAGES = vit_paper.PRETRAINING["ImageNet"]
BORDER = 32


def get_config(variant: str = "B0") -> ConfigDict:
    """``SIZE[,epochs=350]``."""
    choice = parse_variant(variant, "model", model="B0", epochs=EPOCHS)
    model, epochs = choice["model"], choice["epochs"]
    size = pick(efficientnet_sizes.SIZES, model, "model of efficientnet_i1k")
    expected = {"imagenet top-1, Table 2": TOP1[model]} if model in TOP1 and epochs == EPOCHS else {}
    return ConfigDict(
        {
            "paper": {
                "paper": "arXiv:1911.04252" if model == "L2" else "arXiv:1905.11946",
                "row": f"EfficientNet-{model} ImageNet, {epochs} epochs"
                if model != "L2"
                else "none: L2 on ImageNet alone",
                "expected": expected,
                "core_days": None,
            },
            "model": {
                "kind": "efficientnet",
                **efficientnet_sizes.fields(model),
                "dropout": size.dropout,
                "stochastic_depth": 0.2,
            },
            "objective": {
                "kind": "classification",
                "label_smoothing": 0.1,
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
            },
            "data": {
                "source": {"kind": "tfds", "name": "imagenet2012", "split": "train"},
                "ops": (
                    {"kind": "decode"},
                    {"kind": "inception_crop", "area_min": 0.08, "method": "bicubic"},
                    {"kind": "flip"},
                    {"kind": "randaugment", "num_layers": 2, "magnitude": MAGNITUDE.get(model, 9)},
                ),
                "num_examples": IMAGES.num_examples,
                "num_classes": IMAGES.num_classes,
                "image_size": size.image_size,
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
                            {"kind": "resize_small", "smaller": size.image_size + BORDER, "method": "bicubic"},
                            {"kind": "central_crop"},
                        ),
                        "num_examples": 50_000,
                    },
                }
            },
            "optimizer": {
                "kind": "rmsprop",
                "lr": 0.256,
                "decay": 0.9,
                "momentum": 0.9,
                "eps": 1e-3,
                "weight_decay": 1e-5,
                "decay_mask": (r"(^|/)kernel$", r"(^|/)(squeeze|excite|head)/bias$"),
                "ema": 0.9999,
                "ema_warmup": True,
            },
            "schedule": {"kind": "exponential", "warmup": {"epochs": 5}, "every": {"epochs": 2.4}, "factor": 0.97},
            # L2 leaves 1.2 GB an image otherwise.
            "remat": "full" if model == "L2" else "none",
            "duration": {"epochs": epochs},
            "checkpoint": {"every": {"epochs": 5}},
            "log": {"every": {"steps": 50}},
            "seed": 0,
        }
    )
