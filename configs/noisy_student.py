"""Noisy Student: EfficientNet-L2 on ImageNet and 130M pseudo-labelled images.

Paper: Xie et al., "Self-training with Noisy Student improves ImageNet classification",
  arXiv:1911.04252, section 3 (settings) and Table 7 (the iterations); ViT, arXiv:2010.11929,
  Table 2 (ReaL, cost).
Iterations: teacher B7, then three students L2; in the last the unlabelled batch is 28 times the
  labelled one, before that 14 times. Then 1.5 epochs at 800 px without noise (`tune=true`).
Data: imagenet2012 of TFDS, and JFT-300M without its labels (not public: any large set of images
  serves; name it in data.source.sources.pseudo.source). `vitax pseudo-label` writes the teacher's
  probabilities; kept are images above 0.3, the 130,000 most confident of each class, repeated
  where there are fewer: 130M in all.
Differs: every batch mixes labelled and unlabelled images in proportion, in expectation (7 passes
  over ImageNet in one over the 130M: 14.5 to 1; 4 passes: 25.4 to 1), where the paper draws a
  labelled and an unlabelled batch. Tuning does not hold the shallow layers fixed.
Not in the paper but in EfficientNet's code: warm-up of 5 epochs, label smoothing, averages.
Expected: ImageNet top-1 in `paper.expected`.
Cost: 6 days on 2,048 TPU v3 cores (12.3k core-days) for one L2 with 14 unlabelled for each labelled
  image; ViT's Table 2 prints that for the final model.
Command:
  vitax train --config noisy_student:B7 --workdir runs/noisy_student/B7
  vitax pseudo-label --config noisy_student:L2,iteration=1 --checkpoint runs/noisy_student/B7
  vitax train --config noisy_student:L2,iteration=1 --workdir runs/noisy_student/L2-1
  and so on; at last vitax train --config noisy_student:L2,iteration=3,tune=true --workdir runs/noisy_student/L2
"""

from typing import Any

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import UserError, pick
from vitax.cost import vit_paper
from vitax.models import efficientnet_sizes

PAPER = "arXiv:1911.04252"
LABELLED = vit_paper.PRETRAINING["ImageNet"]
LABELLED_BATCH, EPOCHS = 2048, 350
MIN_CONFIDENCE, PER_CLASS = 0.3, 130_000
# iteration -> (unlabelled for each labelled image in the paper, passes over ImageNet an epoch, top-1).
ITERATIONS = {1: (14, 7, 87.6), 2: (14, 7, 88.1), 3: (28, 4, 88.4)}
COLUMN = next(c for c in vit_paper.TABLE_2 if "Noisy Student" in c.model)
VARIANTS = ("L2,iteration=1", "L2,iteration=2", "L2,iteration=3", "L2,iteration=3,tune=true", "B7")
TUNED_SIZE = 800


def get_config(variant: str = "L2,iteration=3") -> ConfigDict:
    """``B7`` (the first teacher), or ``L2,iteration=1|2|3[,tune=true]``."""
    choice = parse_variant(variant, "model", model="L2", iteration=3, tune=False)
    model, iteration, tune = choice["model"], choice["iteration"], choice["tune"]
    pick({"B7": None, "L2": None}, model, "model of noisy_student")
    if iteration not in ITERATIONS:
        raise UserError(f"noisy_student: iteration={iteration}; expected 1, 2 or 3.")
    student = model == "L2"
    if tune and not student:
        raise UserError("noisy_student: tune=true is for L2.")
    ratio, repeats, top1 = ITERATIONS[iteration]
    size = efficientnet_sizes.SIZES[model]
    image_size = TUNED_SIZE if tune else size.image_size
    source: dict[str, Any] = {"kind": "tfds", "name": "imagenet2012", "split": "train"}
    num_examples, batch_size = LABELLED.num_examples, LABELLED_BATCH
    noise: tuple[dict[str, Any], ...] = ({"kind": "randaugment", "num_layers": 2, "magnitude": 27},)
    if student and not tune:
        source = _with_pseudo_labels(source, f"L2-{iteration - 1}" if iteration > 1 else "B7", repeats)
        num_examples = repeats * num_examples + PER_CLASS * LABELLED.num_classes
        batch_size *= 1 + ratio
    crop = {"kind": "inception_crop", "area_min": 0.08, "method": "bicubic"}
    # The last epochs see no noise: a border off, as when the model is tested.
    ops = _tested(image_size) if tune else ({"kind": "decode"}, crop, {"kind": "flip"}, *noise)
    return ConfigDict(
        {
            "paper": _paper(model, iteration, tune, top1),
            "model": {
                "kind": "efficientnet",
                **efficientnet_sizes.fields(model),
                "dropout": 0.0 if tune else 0.5,
                "stochastic_depth": 0.0 if tune else 0.2,
            },
            "objective": {
                "kind": "classification",
                "label_smoothing": 0.0 if student else 0.1,
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
            },
            "data": {
                "source": source,
                "ops": ops,
                "num_examples": num_examples,
                "num_classes": LABELLED.num_classes,
                "image_size": image_size,
                "batch_size": batch_size,
                "soft_labels": student and not tune,
            },
            "evaluators": {
                "val": {
                    "kind": "classification",
                    "every": {"fraction": 0.05},
                    "data": {
                        "source": {"kind": "tfds", "name": "imagenet2012", "split": "validation"},
                        "ops": _tested(image_size),
                        "num_examples": 50_000,
                        "batch_size": LABELLED_BATCH,
                    },
                }
            },
            "optimizer": {
                "kind": "rmsprop",
                "lr": 0.0128 if tune else 0.128,
                "decay": 0.9,
                "momentum": 0.9,
                "eps": 1e-3,
                "weight_decay": 1e-5,
                "decay_mask": (r"(^|/)kernel$", r"(^|/)(squeeze|excite|head)/bias$"),
                "ema": 0.9999,
                "ema_warmup": True,
            },
            # Epochs of the paper are passes over the labelled images.
            "schedule": {
                "kind": "exponential",
                "warmup": {"steps": 0 if tune else _labelled_steps(5)},
                "every": {"steps": _labelled_steps(2.4)},
                "factor": 0.97,
            },
            "duration": {"steps": _labelled_steps(1.5 if tune else EPOCHS)},
            **({"init_from": {"checkpoint": f"runs/noisy_student/L2-{iteration}", "reset": ()}} if tune else {}),
            "checkpoint": {"every": {"steps": 1_000}},
            "log": {"every": {"steps": 50}},
            "seed": 0,
        }
    )


def _labelled_steps(epochs: float) -> int:
    return round(epochs * LABELLED.num_examples / LABELLED_BATCH)


def _with_pseudo_labels(labelled: dict[str, Any], teacher: str, repeats: int) -> dict[str, Any]:
    pseudo = {
        "kind": "pseudo_labelled",
        "source": {"kind": "tfds", "name": "jft300m", "split": "train"},
        "labels": f"runs/noisy_student/{teacher}_labels",
        "min_confidence": MIN_CONFIDENCE,
        "per_class": PER_CLASS,
    }
    return {
        "kind": "concat",
        "sources": {"labelled": labelled, "pseudo": pseudo},
        "repeats": {"labelled": repeats},
    }


def _tested(size: int) -> tuple[dict[str, Any], ...]:
    """As the authors of EfficientNet test: the smaller side to 32 pixels more, and the middle of that."""
    return (
        {"kind": "decode"},
        {"kind": "resize_small", "smaller": size + 32, "method": "bicubic"},
        {"kind": "central_crop"},
    )


def _paper(model: str, iteration: int, tune: bool, top1: float) -> dict[str, Any]:
    if model != "L2":
        return {"paper": PAPER, "row": "the first teacher, EfficientNet-B7", "expected": {}, "core_days": None}
    place = {"model": COLUMN.model, "pretraining": COLUMN.pretraining}
    final = iteration == 3
    return {
        "paper": PAPER,
        "row": f"Table 7, iteration {iteration}" + (f", at {TUNED_SIZE} px" if tune else ""),
        # The print is of the model after it was tuned.
        "expected": {"imagenet top-1": top1} if tune else {},
        "core_days": None if tune else COLUMN.core_days,
        "table2": {**place, "cell": "imagenet2012" if tune else "core_days"} if final else None,
    }
