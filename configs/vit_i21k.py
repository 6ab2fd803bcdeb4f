"""ViT pre-trained on ImageNet-21k.

Paper: Dosovitskiy et al., arXiv:2010.11929, Table 3 (settings) and Table 2 (L/16).
Data: ImageNet-21k as the authors used it: 21,843 classes and about 12.4M images after
  merging duplicates (the paper says 14M); prepare it as ArrayRecord through TFDS, name it
  in data.source and state its size in data.num_examples.
Not in the paper but from its authors' public notes: sigmoid cross-entropy, decay to an
  absolute 1e-5, a tanh hidden layer before the head, head bias at -10; the released
  weights and Table 2's 230 core-days fit 90 epochs.
Expected: ImageNet top-1 after fine-tuning, in `paper.expected`, where the epochs are 90 (Tables 2
  and 5 do not say which of the two they fine-tuned).
Cost: L/16 230 TPUv3-core-days (Table 2).
Command: vitax train --config vit_i21k:L/16 --workdir DIR; vit_i21k:L/16,epochs=30 for 30 epochs
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import pick
from vitax.cost import vit_paper
from vitax.models import vit_sizes

# model -> epochs of Table 3; the last is the default
TABLE_3 = {"B/32": (90,), "B/16": (90,), "L/32": (30, 90), "L/16": (30, 90)}
VARIANTS = tuple(f"{model},epochs={epochs}" for model, choices in TABLE_3.items() for epochs in choices)
DATA = "ImageNet-21k"
TABLE_2 = {(c.model, c.epochs): c for c in vit_paper.TABLE_2 if c.pretraining == DATA}
IMAGES = vit_paper.PRETRAINING[DATA]


def get_config(variant: str = "L/16") -> ConfigDict:
    """``MODEL[,epochs=N]``, with a model of Table 3; 90 epochs by default."""
    choice = parse_variant(variant, "model", model="L/16", epochs=None)
    stated = pick(TABLE_3, choice["model"], "model of vit_i21k")
    epochs = choice["epochs"] or stated[-1]
    key = (f"ViT-{choice['model']}", epochs)
    expected: dict[str, float | None] = {}
    if epochs == 90:
        expected["imagenet top-1, Table 5"] = vit_paper.TABLE_5[key[0], "ImageNet-21k"].imagenet2012
    if key in TABLE_2:
        expected["imagenet top-1, Table 2"] = TABLE_2[key].mean.imagenet2012
    return ConfigDict(
        {
            "paper": {
                "paper": vit_paper.PAPER,
                "row": f"Table 3, {key[0]} ImageNet-21k, {epochs} epochs",
                "expected": expected,
                "core_days": TABLE_2[key].core_days if key in TABLE_2 else None,
                "table2": {"model": key[0], "pretraining": "ImageNet-21k", "cell": "core_days"}
                if key in TABLE_2
                else None,
            },
            "model": {
                "kind": "vit",
                **vit_sizes.fields(choice["model"]),
                "dropout": 0.1,
                "pre_logits": True,
                "head_bias_init": -10.0,
            },
            "objective": {"kind": "classification", "cross_entropy": "sigmoid"},
            "data": {
                "source": {"kind": "tfds", "name": "imagenet21k", "split": "train"},
                "ops": ({"kind": "decode"}, {"kind": "inception_crop"}, {"kind": "flip"}),
                "num_examples": IMAGES.num_examples,
                "num_classes": IMAGES.num_classes,
                "image_size": vit_paper.IMAGE_SIZE,
                "batch_size": 4096,
            },
            "optimizer": {"kind": "adamw", "lr": 1e-3, "weight_decay": 0.03, "b1": 0.9, "b2": 0.999},
            "schedule": {"kind": "linear", "warmup": {"steps": 10_000}, "end_lr": 1e-5},
            "duration": {"epochs": epochs},
            "checkpoint": {"every": {"steps": 5_000}},
            "log": {"every": {"steps": 50}},
            "seed": 0,
        }
    )
