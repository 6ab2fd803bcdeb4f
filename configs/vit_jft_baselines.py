"""The ViT paper's own ResNets and hybrids on JFT-300M, trained with Adam.

Paper: Dosovitskiy et al., arXiv:2010.11929, Table 3 (settings) and Table 6 (the scaling study).
  The ResNets are BiT's; Table 6's ResNet200x3 has no settings in Table 3 and is left out.
Data: JFT-300M is not public: 303M images, 18,291 classes; prepare a set of that form as
  ArrayRecord through TFDS and name it in data.source.
Not in the paper but from its authors' public notes: sigmoid cross-entropy, decay to an
  absolute 1e-5, a tanh hidden layer before the head of the hybrids, head bias at -10.
Expected: ImageNet top-1 after fine-tuning and exaFLOPs, in `paper.expected` of each row (for the
  ResNets vitax counts 3.5 to 5% more: `vitax cost --paper` says why). The paper states no core-days.
Command: vitax train --config vit_jft_baselines:R50+ViT-B/16 --workdir DIR;
  vitax train --config vit_jft_baselines:R152x2,epochs=14 --workdir DIR
"""

from typing import Any

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import pick
from vitax.cost import vit_paper
from vitax.models import bit_sizes, vit_sizes

# model -> (learning rate, epochs of Tables 3 and 6); the last epochs are the default
TABLE_3 = {
    "R50x1": (1e-3, (7,)),
    "R50x2": (1e-3, (7,)),
    "R101x1": (8e-4, (7,)),
    "R152x1": (6e-4, (7,)),
    "R152x2": (6e-4, (7, 14)),
    "R50+ViT-B/32": (8e-4, (7,)),
    "R50+ViT-B/16": (8e-4, (7,)),
    "R50+ViT-L/32": (2e-4, (7,)),
    "R50+ViT-L/16": (4e-4, (7, 14)),
}
VARIANTS = tuple(f"{model},epochs={epochs}" for model, (_, stated) in TABLE_3.items() for epochs in stated)
IMAGES = vit_paper.PRETRAINING["JFT-300M"]


def get_config(variant: str = "R50+ViT-L/16") -> ConfigDict:
    """``MODEL[,epochs=N]``, with a ResNet or hybrid of Table 3."""
    choice = parse_variant(variant, "model", model="R50+ViT-L/16", epochs=None)
    name = choice["model"]
    lr, stated = pick(TABLE_3, name, "model of vit_jft_baselines")
    epochs = choice["epochs"] or stated[-1]
    printed = f"R50x1+{name.removeprefix('R50+')}" if "+" in name else f"ResNet{name.removeprefix('R')}"
    row = vit_paper.TABLE_6.get((printed, epochs))
    expected = {} if row is None else {"imagenet top-1, Table 6": row.accuracy.imagenet2012, "exaFLOPs": row.exaflops}
    if "+" in name:
        model: dict[str, Any] = {"kind": "hybrid", **vit_sizes.hybrid_fields(name), "pre_logits": True}
    else:
        model = {"kind": "bit", **bit_sizes.fields(name)}
    return ConfigDict(
        {
            "paper": {
                "paper": vit_paper.PAPER,
                "row": f"Table 3, {name} JFT-300M, {epochs} epochs",
                "expected": expected,
                "core_days": None,
            },
            "model": model | {"head_bias_init": -10.0},
            "objective": {"kind": "classification", "cross_entropy": "sigmoid"},
            "data": {
                "source": {"kind": "tfds", "name": "jft300m", "split": "train"},
                "ops": ({"kind": "decode"}, {"kind": "inception_crop"}, {"kind": "flip"}),
                "num_examples": IMAGES.num_examples,
                "num_classes": IMAGES.num_classes,
                "image_size": vit_paper.IMAGE_SIZE,
                "batch_size": 4096,
            },
            "optimizer": {"kind": "adamw", "lr": lr, "weight_decay": 0.1, "b1": 0.9, "b2": 0.999},
            "schedule": {"kind": "linear", "warmup": {"steps": 10_000}, "end_lr": 1e-5},
            "duration": {"epochs": epochs},
            "checkpoint": {"every": {"steps": 5_000}},
            "log": {"every": {"steps": 50}},
            "seed": 0,
        }
    )
