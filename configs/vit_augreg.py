"""ViT with augmentation and regularisation to choose: the AugReg study.

Paper: Steiner et al., "How to train your ViT?", arXiv:2106.10270, section 3: RandAugment and
  mixup in seven strengths, weight decay, dropout and stochastic depth as a grid. The
  published files carry the choice in their names, and the variant is spelt alike:
  B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz is
  `B/16,data=i21k,epochs=300,aug=medium1,wd=0.1,do=0.0,sd=0.0`.
Data: ImageNet-21k (21,843 classes) or, `data=i1k`, imagenet2012; both through TFDS.
Names: files call light1 and light2 light0 and light1. wd is multiplied by the learning rate:
  0.1 at 1e-3 is 1e-4 in the code that trained them. mixup's column "probability" in the
  paper is the alpha of its Beta distribution in that code, and here.
Not in the paper's text: sigmoid cross-entropy, the head's bias at -10 (i21k) or -6.9 (i1k).
Expected: the study publishes thousands of models and no one number for a preset.
Command: vitax train --config vit_augreg:B/16,aug=medium1 --workdir DIR
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import pick
from vitax.cost import vit_paper
from vitax.models import vit_sizes

# name -> mixup alpha, RandAugment ops, magnitude (section 3.4).
AUGMENTATIONS: dict[str, tuple[float, int, int]] = {
    "none": (0.0, 0, 0),
    "light1": (0.0, 2, 0),
    "light2": (0.2, 2, 10),
    "medium1": (0.2, 2, 15),
    "medium2": (0.5, 2, 15),
    "strong1": (0.5, 2, 20),
    "strong2": (0.8, 2, 20),
}
# data -> TFDS name, set of the ViT paper, head bias.
DATA = {"i21k": ("imagenet21k", "ImageNet-21k", -10.0), "i1k": ("imagenet2012", "ImageNet", -6.9)}
MODELS = ("Ti/16", "S/32", "S/16", "B/32", "B/16", "B/8", "L/16")
VARIANTS = ("B/16", *(f"B/16,aug={name}" for name in AUGMENTATIONS), "Ti/16,aug=none", "L/16,data=i1k,aug=strong2")


def get_config(variant: str = "B/16") -> ConfigDict:
    """``MODEL[,data=i21k|i1k,epochs=N,aug=NAME,wd=W,do=D,sd=S]``."""
    choice = parse_variant(
        variant, "model", model="B/16", data="i21k", epochs=300, aug="medium1", wd=0.1, do=0.0, sd=0.0
    )
    pick(dict.fromkeys(MODELS), choice["model"], "model of vit_augreg")
    augmentation = choice["aug"] or "none"  # the word is also how a variant spells no value
    name, images, bias = pick(DATA, choice["data"], "data of vit_augreg")
    alpha, num_layers, magnitude = pick(AUGMENTATIONS, augmentation, "aug of vit_augreg")
    ops: tuple[dict[str, object], ...] = ({"kind": "decode"}, {"kind": "inception_crop"}, {"kind": "flip"})
    if num_layers:
        ops = (*ops, {"kind": "randaugment", "num_layers": num_layers, "magnitude": float(magnitude)})
    return ConfigDict(
        {
            "paper": {
                "paper": "arXiv:2106.10270",
                "row": f"section 3, ViT-{choice['model']} {images}, {choice['epochs']} epochs, {augmentation}",
                "expected": {},
                "core_days": None,
            },
            "model": {
                "kind": "vit",
                **vit_sizes.fields(choice["model"]),
                "dropout": float(choice["do"]),
                "stochastic_depth": float(choice["sd"]),
                "head_bias_init": bias,
            },
            "objective": {"kind": "classification", "cross_entropy": "sigmoid", "mixup": alpha},
            "data": {
                "source": {"kind": "tfds", "name": name, "split": "train"},
                "ops": ops,
                "num_examples": vit_paper.PRETRAINING[images].num_examples,
                "num_classes": vit_paper.PRETRAINING[images].num_classes,
                "image_size": vit_paper.IMAGE_SIZE,
                "batch_size": 4096,
            },
            "optimizer": {
                "kind": "adamw",
                "lr": 1e-3,
                "weight_decay": float(choice["wd"]),
                "b1": 0.9,
                "b2": 0.999,
                "clip_norm": 1.0,
            },
            "schedule": {"kind": "cosine", "warmup": {"steps": 10_000}},
            "duration": {"epochs": choice["epochs"]},
            "checkpoint": {"every": {"steps": 5_000}},
            "log": {"every": {"steps": 50}},
            "seed": 0,
        }
    )
