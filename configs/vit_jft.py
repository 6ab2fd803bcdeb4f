"""ViT pre-trained on JFT-300M.

Paper: Dosovitskiy et al., arXiv:2010.11929, Table 3 (settings), Table 2 (L/16 and H/14,
  14 epochs) and Table 6 (the scaling study: B/32, B/16, L/32, L/16, H/14).
Data: JFT-300M is not public: 303M images, 18,291 classes; prepare a set of that form as
  ArrayRecord through TFDS and name it in data.source.
Not in the paper but from its authors' public notes: sigmoid cross-entropy, decay to an
  absolute 1e-5, a tanh hidden layer before the head, head bias at -10.
Expected: ImageNet top-1 after fine-tuning, in `paper.expected` of each row.
Cost: L/16 680, H/14 2,500 TPUv3-core-days (Table 2).
Command: vitax train --config vit_jft:L/16 --workdir DIR (default: Table 2's L/16, 14 epochs);
  vitax train --config vit_jft:L/16,epochs=7 --workdir DIR (Table 6)
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import pick
from vitax.cost import vit_paper
from vitax.models import vit_sizes

# model -> (learning rate, epochs) of Table 3; the last epochs are the default
TABLE_3 = {
    "B/32": (8e-4, (7,)),
    "B/16": (8e-4, (7,)),
    "L/32": (6e-4, (7,)),
    "L/16": (4e-4, (7, 14)),
    "H/14": (3e-4, (14,)),
}
VARIANTS = tuple(f"{model},epochs={epochs}" for model, (_, stated) in TABLE_3.items() for epochs in stated)
DATA = "JFT-300M"
TABLE_2 = {(c.model, c.epochs): c for c in vit_paper.TABLE_2 if c.pretraining == DATA}
IMAGES = vit_paper.PRETRAINING[DATA]


def get_config(variant: str = "L/16") -> ConfigDict:
    """``MODEL[,epochs=N]``, with a ViT of Table 3; L/16 trains for 14 epochs by default."""
    choice = parse_variant(variant, "model", model="L/16", epochs=None)
    lr, stated = pick(TABLE_3, choice["model"], "model of vit_jft")
    epochs = choice["epochs"] or stated[-1]
    key = (f"ViT-{choice['model']}", epochs)
    expected: dict[str, float | None] = {}
    if key in TABLE_2:
        expected["imagenet top-1, Table 2"] = TABLE_2[key].mean.imagenet2012
    if key in vit_paper.TABLE_6:
        expected["imagenet top-1, Table 6"] = vit_paper.TABLE_6[key].accuracy.imagenet2012
        expected["exaFLOPs"] = vit_paper.TABLE_6[key].exaflops
    return ConfigDict(
        {
            "paper": {
                "paper": vit_paper.PAPER,
                "row": f"Table 3, {key[0]} JFT-300M, {epochs} epochs",
                "expected": expected,
                "core_days": TABLE_2[key].core_days if key in TABLE_2 else None,
                "table2": {"model": key[0], "pretraining": DATA, "cell": "core_days"} if key in TABLE_2 else None,
            },
            "model": {"kind": "vit", **vit_sizes.fields(choice["model"]), "pre_logits": True, "head_bias_init": -10.0},
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
