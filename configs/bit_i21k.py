"""BiT-M pre-trained on ImageNet-21k.

Paper: Kolesnikov et al., "Big Transfer (BiT)", arXiv:1912.11370 (settings, and Table 2: R152x4).
Data: ImageNet-21k with 21,843 classes and about 12.4M images, as `vit_i21k` has it (the papers say
  14M); prepare it as ArrayRecord through TFDS, name it in data.source and state its size in
  data.num_examples.
Not in the paper: sigmoid cross-entropy with the head bias at -10, as in ViT's pre-training on the
  same set (arXiv:2010.11929), and which parameters decay: kernels alone.
Expected: ImageNet top-1 after `bit_finetune`, in `paper.expected` of R152x4, rounded to 0.1; the paper
  states no cost.
Command: vitax train --config bit_i21k:R152x4 --workdir DIR
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
IMAGES = vit_paper.PRETRAINING["ImageNet-21k"]


def get_config(variant: str = "R152x4") -> ConfigDict:
    """``SIZE[,epochs=90]``; with other epochs the rate falls at the same fractions of the run."""
    choice = parse_variant(variant, "size", size="R152x4", epochs=EPOCHS)
    size, epochs = choice["size"], choice["epochs"]
    as_printed = (size, epochs) == ("R152x4", EPOCHS)
    return ConfigDict(
        {
            "paper": {
                "paper": PAPER,
                "row": f"BiT-M, {size} ImageNet-21k, {epochs} epochs",
                "expected": {"imagenet top-1": 85.4} if as_printed else {},
                "core_days": None,
            },
            "model": {"kind": "bit", **bit_sizes.fields(size), "head_bias_init": -10.0},
            "objective": {"kind": "classification", "cross_entropy": "sigmoid"},
            "data": {
                "source": {"kind": "tfds", "name": "imagenet21k", "split": "train"},
                "ops": ({"kind": "decode"}, {"kind": "inception_crop"}, {"kind": "flip"}),
                "num_examples": IMAGES.num_examples,
                "num_classes": IMAGES.num_classes,
                "image_size": 224,
                "batch_size": BATCH_SIZE,
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
