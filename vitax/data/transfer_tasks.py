"""The data sets that ViT is fine-tuned on: names, splits and sizes in TFDS, as data.

The splits are those of the transfer literature: the main tasks train on all labels that
are not test labels, VTAB-1k on the first 800 training and the first 200 validation
images, where validation is what task_adaptation (VTAB's own code) holds out.
"""

from typing import NamedTuple


class Part(NamedTuple):
    """Some examples of a data set.

    Attributes:
      split: as TFDS spells it, with its own slices.
      num_examples: how many these are.
    """

    split: str
    num_examples: int


class Task(NamedTuple):
    """A classification task.

    Attributes:
      tfds: name (and config) of the data set.
      num_classes: of its labels.
      train: what to train on, all of it.
      test: what to report.
      crop: whether a random crop leaves the label true.
      flip: whether mirroring leaves the label true.
      label_key: feature that holds the label.
    """

    tfds: str
    num_classes: int
    train: tuple[Part, ...]
    test: Part
    crop: bool = True
    flip: bool = True
    label_key: str = "label"


TASKS: dict[str, Task] = {
    "imagenet2012": Task("imagenet2012", 1000, (Part("train", 1_281_167),), Part("validation", 50_000)),
    "cifar10": Task("cifar10", 10, (Part("train", 50_000),), Part("test", 10_000)),
    "cifar100": Task("cifar100", 100, (Part("train", 50_000),), Part("test", 10_000)),
    "oxford_iiit_pet": Task("oxford_iiit_pet", 37, (Part("train", 3_680),), Part("test", 3_669)),
    "oxford_flowers102": Task(
        "oxford_flowers102", 102, (Part("train", 1_020), Part("validation", 1_020)), Part("test", 6_149)
    ),
}

_FIRST_800 = Part("train[:800]", 800)
_WITH_VALIDATION = (_FIRST_800, Part("validation[:200]", 200))
_SMALLNORB_TRAIN = (_FIRST_800, Part("test[:200]", 200))
_SMALLNORB_TEST = Part("test[50%:]", 12_150)


def _held_out_at(start: int) -> tuple[Part, ...]:
    """800 examples, and 200 from where VTAB's validation part of the training split begins."""
    return (_FIRST_800, Part(f"train[{start}:{start + 200}]", 200))


# VTAB, arXiv:1910.04867. Splits, crops and flips as in Scenic's recipe for plain ViTs on
# VTAB, which agrees with the splits of task_adaptation. Five of its 19 tasks make their
# labels out of other features and are not here: Clevr count, Clevr distance, KITTI distance,
# dSprites location, dSprites orientation.
VTAB: dict[str, Task] = {
    "caltech101": Task("caltech101", 102, _held_out_at(2_754), Part("test", 6_084)),
    "cifar100": Task("cifar100", 100, _held_out_at(45_000), Part("test", 10_000)),
    "dtd": Task("dtd", 47, _WITH_VALIDATION, Part("test", 1_880)),
    "oxford_flowers102": Task("oxford_flowers102", 102, _WITH_VALIDATION, Part("test", 6_149)),
    "oxford_iiit_pet": Task("oxford_iiit_pet", 37, _held_out_at(2_944), Part("test", 3_669)),
    "sun397": Task("sun397/tfds", 397, _WITH_VALIDATION, Part("test", 21_750)),
    "svhn": Task("svhn_cropped", 10, _held_out_at(65_931), Part("test", 26_032)),
    "eurosat": Task("eurosat/rgb", 10, _held_out_at(16_200), Part("train[21600:]", 5_400)),
    "resisc45": Task("resisc45", 45, _held_out_at(18_900), Part("train[25200:]", 6_300)),
    "patch_camelyon": Task("patch_camelyon", 2, _WITH_VALIDATION, Part("test", 32_768)),
    "diabetic_retinopathy": Task(
        "diabetic_retinopathy_detection/btgraham-300", 5, _WITH_VALIDATION, Part("test", 42_670)
    ),
    "dmlab": Task("dmlab", 6, _WITH_VALIDATION, Part("test", 22_735), crop=False),
    "smallnorb_azimuth": Task(
        "smallnorb", 18, _SMALLNORB_TRAIN, _SMALLNORB_TEST, flip=False, label_key="label_azimuth"
    ),
    "smallnorb_elevation": Task("smallnorb", 9, _SMALLNORB_TRAIN, _SMALLNORB_TEST, label_key="label_elevation"),
}


def held_out(task: Task, share: float) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Splits what a task trains on in two: the last of each part is held out.

    Args:
      task: one of ``TASKS``, whose parts are whole splits.
      share: fraction to hold out, rounded to whole examples in each part.

    Returns:
      (to train on, held out).
    """
    kept, out = [], []
    for part in task.train:
        size = round(part.num_examples * share)
        rest = part.num_examples - size
        kept.append(Part(f"{part.split}[:{rest}]", rest))
        out.append(Part(f"{part.split}[{rest}:]", size))
    return tuple(kept), tuple(out)


def joined(parts: tuple[Part, ...]) -> Part:
    """Several parts as one, ``train+validation``."""
    return Part("+".join(part.split for part in parts), sum(part.num_examples for part in parts))
