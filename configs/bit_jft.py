"""BiT-L pre-trained on JFT-300M.

Paper: Kolesnikov et al., "Big Transfer (BiT)", arXiv:1912.11370 (settings, and Table 1: R152x4); ViT,
  arXiv:2010.11929, Table 2 (its cost).
Data: JFT-300M is not public: 303M images, 18,291 classes; prepare a set of that form as
  ArrayRecord through TFDS and name it in data.source.
Not in the paper: sigmoid cross-entropy with the head bias at -10, as in ViT's pre-training on the
  same set (arXiv:2010.11929), and which parameters decay: kernels alone.
Expected: top-1 after `bit_finetune`, in `paper.expected` of R152x4.
Cost: R152x4 9,900 TPUv3-core-days.
Command: vitax train --config bit_jft:R152x4 --workdir DIR
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.cost import vit_paper
from vitax.models import bit_sizes

PAPER = "arXiv:1912.11370"
EPOCHS, MILESTONES = 40, (10, 23, 30, 37)
BATCH_SIZE = 4096
VARIANTS = ("R50x1", "R50x3", "R101x1", "R101x3", "R152x2", "R152x4")
IMAGES = vit_paper.PRETRAINING["JFT-300M"]
BIT_L = next(c for c in vit_paper.TABLE_2 if c.model == "BiT-L R152x4")


def get_config(variant: str = "R152x4") -> ConfigDict:
    """``SIZE[,epochs=40]``; with other epochs the rate falls at the same fractions of the run."""
    choice = parse_variant(variant, "size", size="R152x4", epochs=EPOCHS)
    size, epochs = choice["size"], choice["epochs"]
    as_printed = (size, epochs) == ("R152x4", EPOCHS)
    return ConfigDict(
        {
            "paper": {
                "paper": PAPER,
                "row": f"BiT-L, {size} JFT-300M, {epochs} epochs",
                "expected": {"imagenet top-1": BIT_L.mean.imagenet2012} if as_printed else {},
                "core_days": BIT_L.core_days if as_printed else None,
                "table2": {"model": BIT_L.model, "pretraining": BIT_L.pretraining, "cell": "core_days"}
                if as_printed
                else None,
            },
            "model": {"kind": "bit", **bit_sizes.fields(size), "head_bias_init": -10.0},
            "objective": {"kind": "classification", "cross_entropy": "sigmoid"},
            "data": {
                "source": {"kind": "tfds", "name": "jft300m", "split": "train"},
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
