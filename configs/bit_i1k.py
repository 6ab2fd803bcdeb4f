"""BiT-S pre-trained on ImageNet-1k.

Paper: Kolesnikov et al., "Big Transfer (BiT)", arXiv:1912.11370 (settings).
Data: imagenet2012 of TFDS, prepared as ArrayRecord.
Not in the paper: which parameters decay: kernels alone.
Expected: nothing that is transcribed here; the paper states no cost.
Command: vitax train --config bit_i1k:R50x1 --workdir DIR --config.data.source.data_dir=TFDS_DIR
  --config.evaluators.val.data.source.data_dir=TFDS_DIR
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.cost import vit_paper
from vitax.models import bit_sizes

PAPER = "arXiv:1912.11370"
EPOCHS, MILESTONES = 90, (30, 60, 80)
BATCH_SIZE = 4096
# Listed; SIZE takes all of bit_sizes.
VARIANTS = ("R50x1", "R101x3", "R152x4")
IMAGES = vit_paper.PRETRAINING["ImageNet"]


def get_config(variant: str = "R50x1") -> ConfigDict:
    """``SIZE[,epochs=90]``; with other epochs the rate falls at the same fractions of the run."""
    choice = parse_variant(variant, "size", size="R50x1", epochs=EPOCHS)
    size, epochs = choice["size"], choice["epochs"]
    return ConfigDict(
        {
            "paper": {
                "paper": PAPER,
                "row": f"BiT-S, {size} ImageNet, {epochs} epochs",
                "expected": {},
                "core_days": None,
            },
            "model": {"kind": "bit", **bit_sizes.fields(size)},
            "objective": {"kind": "classification", "cross_entropy": "softmax"},
            "data": {
                "source": {"kind": "tfds", "name": "imagenet2012", "split": "train"},
                "ops": ({"kind": "decode"}, {"kind": "inception_crop"}, {"kind": "flip"}),
                "num_examples": IMAGES.num_examples,
                "num_classes": IMAGES.num_classes,
                "image_size": 224,
                "batch_size": BATCH_SIZE,
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
                "kind": "sgd",
                "lr": 0.03 * BATCH_SIZE / 256,
                "momentum": 0.9,
                "weight_decay": 1e-4,
                "weight_decay_scale": "gradient",
            },
            "schedule": {
                "kind": "step",
                "warmup": {"steps": 5_000},
                "milestones": tuple({"epochs": at * epochs / EPOCHS} for at in MILESTONES),
            },
            "duration": {"epochs": epochs},
            "checkpoint": {"every": {"steps": 5_000}},
            "log": {"every": {"steps": 50}},
            "seed": 0,
        }
    )
