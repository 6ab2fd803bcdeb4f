"""BiT fine-tuned by the BiT-HyperRule on ImageNet, CIFAR, Pets, Flowers-102 and VTAB-1k.

Paper: Kolesnikov et al., arXiv:1912.11370, section 3.3 (the rule) and Table 1 (R152x4 from JFT-300M).
Data: TFDS, prepared as ArrayRecord, as in `vit_finetune`.
Start: `init_from.checkpoint`, a run of `bit_i1k`, `bit_i21k` or `bit_jft`; the one written here is a
  placeholder. Its head gives way to one that starts at zero.
The rule: SGD with momentum 0.9, rate 0.003, batch 512, no weight decay; fewer than 20,000 images
  500 steps, fewer than 500,000 10,000 steps and MixUp 0.1, else 20,000 steps and MixUp 0.1; the rate
  falls tenfold at 30, 60 and 90%; images smaller than 96 x 96 are resized to 160 and cropped to 128, others
  to 448 and 384; crops and mirror images where the label allows.
Not in the rule but in its authors' code: 100 steps of warm-up below 20,000 images, else 500. (That code
  lets the rate of the shortest runs fall at 40, 60 and 80%.)
Expected: top-1 in `paper.expected`; the paper states no cost of fine-tuning.
Command: vitax train --config bit_finetune:cifar100,size=R50x1,pretrained=i21k --workdir DIR
  --config.init_from.checkpoint=PRETRAINED_DIR --config.data.source.data_dir=TFDS_DIR
  --config.evaluators.val.data.source.data_dir=TFDS_DIR
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import pick
from vitax.cost import vit_paper
from vitax.data.transfer_tasks import TASKS, VTAB, joined
from vitax.models import bit_sizes

# Images below this, steps, steps of warm-up, alpha of MixUp.
RULE = ((20_000, 500, 100, 0.0), (500_000, 10_000, 500, 0.1), (float("inf"), 20_000, 500, 0.1))
PRETRAINED = {"i1k": "ImageNet", "i21k": "ImageNet-21k", "jft": "JFT-300M"}
# Data sets of images smaller than 96 x 96.
SMALL_IMAGES = ("cifar10", "cifar100", "vtab/cifar100", "vtab/svhn", "vtab/eurosat")
BIT_L = next(c for c in vit_paper.TABLE_2 if c.model == "BiT-L R152x4")
VARIANTS = (*(f"{name},size=R152x4,pretrained=jft" for name in TASKS), "vtab/caltech101")


def get_config(variant: str = "imagenet2012") -> ConfigDict:
    """``DATASET[,size=R50x1][,pretrained=i21k]``.

    ``DATASET`` is imagenet2012, cifar10, cifar100, oxford_iiit_pet, oxford_flowers102 or
    vtab/TASK, ``pretrained`` i1k, i21k or jft.
    """
    choice = parse_variant(variant, "dataset", dataset="imagenet2012", size="R50x1", pretrained="i21k")
    dataset, size = choice["dataset"], choice["size"]
    task = pick(TASKS | {f"vtab/{name}": t for name, t in VTAB.items()}, dataset, "data set of bit_finetune")
    pretraining = pick(PRETRAINED, choice["pretrained"], "pretrained of bit_finetune")
    train = joined(task.train)
    steps, warmup, mixup = next(row[1:] for row in RULE if train.num_examples < row[0])
    larger, pixels = (160, 128) if dataset in SMALL_IMAGES else (448, 384)
    expected, place = {}, None
    if (size, pretraining) == ("R152x4", BIT_L.pretraining):
        vtab = dataset.startswith("vtab/")
        name = "mean top-1 of 19 tasks" if vtab else "top-1"
        cell, _, name_of_task = dataset.partition("/")
        place = {"model": BIT_L.model, "pretraining": pretraining, "cell": cell, "task": name_of_task or None}
        expected[name] = BIT_L.mean.vtab if vtab else getattr(BIT_L.mean, dataset)
    sized = ({"kind": "resize", "size": larger}, {"kind": "random_crop"}) if task.crop else ({"kind": "resize"},)
    source = {"kind": "tfds", "name": task.tfds, "label_key": task.label_key}
    return ConfigDict(
        {
            "paper": {
                "paper": "arXiv:1912.11370",
                "row": f"BiT-HyperRule, {dataset}, {size} from {pretraining}",
                "expected": expected,
                "core_days": None,
                "table2": place,
            },
            "model": {"kind": "bit", **bit_sizes.fields(size)},
            "objective": {"kind": "classification", "cross_entropy": "softmax", "mixup": mixup},
            "data": {
                "source": source | {"split": train.split},
                "ops": ({"kind": "decode"}, *sized, *(({"kind": "flip"},) if task.flip else ())),
                "num_examples": train.num_examples,
                "num_classes": task.num_classes,
                "image_size": pixels,
                "batch_size": 512,
            },
            "evaluators": {
                "val": {
                    "kind": "classification",
                    "every": {"fraction": 0.1},
                    "data": {
                        "source": source | {"split": task.test.split},
                        "ops": ({"kind": "decode"}, {"kind": "resize"}),
                        "num_examples": task.test.num_examples,
                    },
                }
            },
            "optimizer": {"kind": "sgd", "lr": 0.003, "momentum": 0.9, "weight_decay": 0.0},
            "schedule": {
                "kind": "step",
                "warmup": {"steps": warmup},
                "milestones": tuple({"fraction": at} for at in (0.3, 0.6, 0.9)),
            },
            "duration": {"steps": steps},
            "init_from": {"checkpoint": f"runs/bit_{choice['pretrained']}", "reset": ("^head/",)},
            "checkpoint": {"every": {"fraction": 0.1}},
            "log": {"every": {"steps": 50}},
            "seed": 0,
        }
    )
