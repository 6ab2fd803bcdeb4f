"""ViT pre-trained on ImageNet-21k.

Paper: Dosovitskiy et al., arXiv:2010.11929, Table 3 (settings) and Table 2 (L/16).
Data: ImageNet-21k as the authors used it: 21,843 classes and about 12.4M images after
  merging duplicates (the paper says 14M); prepare it as ArrayRecord through TFDS, name it
  in data.source and state its size in data.num_examples.
Not in the paper but from its authors' public notes: sigmoid cross-entropy, decay to an
  absolute 1e-5, a tanh hidden layer before the head, head bias at -10; the released
  weights and Table 2's 230 core-days fit 90 epochs.
Expected: ImageNet top-1 after fine-tuning, in `paper.expected`.
Cost: L/16 230 TPUv3-core-days (Table 2).
Command: vitax train --config vit_i21k:L/16 --workdir DIR; vit_i21k:L/16,epochs=30 for 30 epochs
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import pick
from vitax.models import vit_sizes

# model -> ImageNet top-1 of Table 5 (384 px)
TABLE_5 = {"B/32": 81.28, "B/16": 83.97, "L/32": 80.99, "L/16": 85.15}
VARIANTS = tuple(TABLE_5)


def get_config(variant: str = "L/16") -> ConfigDict:
    """``MODEL[,epochs=90]``, with a model of Table 3."""
    choice = parse_variant(variant, "model", model="L/16", epochs=90)
    model, epochs = choice["model"], choice["epochs"]
    expected = {"imagenet top-1, Table 5": pick(TABLE_5, model, "model of vit_i21k")}
    table_2 = model == "L/16" and epochs == 90
    if table_2:
        expected["imagenet top-1, Table 2"] = 85.30
    return ConfigDict(
        {
            "paper": {
                "paper": "arXiv:2010.11929",
                "row": f"Table 3, ViT-{model} ImageNet-21k, {epochs} epochs",
                "expected": expected,
                "core_days": 230 if table_2 else None,
            },
            "model": {
                "kind": "vit",
                **vit_sizes.fields(model),
                "dropout": 0.1,
                "pre_logits": True,
                "head_bias_init": -10.0,
            },
            "objective": {"kind": "classification", "cross_entropy": "sigmoid"},
            "data": {
                "source": {"kind": "tfds", "name": "imagenet21k", "split": "train"},
                "ops": ({"kind": "decode"}, {"kind": "inception_crop"}, {"kind": "flip"}),
                "num_examples": 12_400_000,
                "num_classes": 21_843,
                "image_size": 224,
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
