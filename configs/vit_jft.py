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
from vitax.models import vit_sizes

# model -> (learning rate of Table 3, epochs unless the variant says otherwise)
TABLE_3 = {"B/32": (8e-4, 7), "B/16": (8e-4, 7), "L/32": (6e-4, 7), "L/16": (4e-4, 14), "H/14": (3e-4, 14)}
# (model, epochs) -> ImageNet top-1 of Table 6, and exaFLOPs
TABLE_6 = {
    ("B/32", 7): (80.73, 55),
    ("B/16", 7): (84.15, 224),
    ("L/32", 7): (84.37, 196),
    ("L/16", 7): (86.30, 783),
    ("L/16", 14): (87.12, 1567),
    ("H/14", 14): (88.08, 4262),
}
# (model, epochs) -> ImageNet top-1 of Table 2 (higher resolution, averaged), TPUv3-core-days
TABLE_2 = {("L/16", 14): (87.76, 680), ("H/14", 14): (88.55, 2500)}
VARIANTS = tuple(f"{model},epochs={epochs}" for model, epochs in TABLE_6)


def get_config(variant: str = "L/16") -> ConfigDict:
    """``MODEL[,epochs=N]``, with a model of Table 3."""
    choice = parse_variant(variant, "model", model="L/16", epochs=None)
    lr, epochs = pick(TABLE_3, choice["model"], "model of vit_jft")
    epochs = choice["epochs"] or epochs
    key = (choice["model"], epochs)
    expected = {}
    if key in TABLE_2:
        expected["imagenet top-1, Table 2"] = TABLE_2[key][0]
    if key in TABLE_6:
        expected["imagenet top-1, Table 6"] = TABLE_6[key][0]
        expected["exaFLOPs"] = TABLE_6[key][1]
    return ConfigDict(
        {
            "paper": {
                "paper": "arXiv:2010.11929",
                "row": f"Table 3, ViT-{key[0]} JFT-300M, {epochs} epochs",
                "expected": expected,
                "core_days": TABLE_2.get(key, (None, None))[1],
            },
            "model": {"kind": "vit", **vit_sizes.fields(key[0]), "pre_logits": True, "head_bias_init": -10.0},
            "objective": {"kind": "classification", "cross_entropy": "sigmoid"},
            "data": {
                "source": {"kind": "tfds", "name": "jft300m", "split": "train"},
                "ops": ({"kind": "decode"}, {"kind": "inception_crop"}, {"kind": "flip"}),
                "num_examples": 303_000_000,
                "num_classes": 18_291,
                "image_size": 224,
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
