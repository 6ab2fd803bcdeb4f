"""A user's own images -> what to train and to validate on, and what is wrong with them."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vitax.construct import call
from vitax.core.errors import UserError
from vitax.data import labelled
from vitax.data.folder import SUFFIXES
from vitax.data.labelled import Labelled
from vitax.data.survey import survey, twins

# Names of the folders of a data set that comes split, by part.
PART_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
# Below so many images a class is learned by luck, and its accuracy is known in steps of 10 points or more.
TINY_CLASS = 10
# Largest to smallest class; ImageNet-LT, a benchmark of imbalance, has 256, ImageNet itself 1.8.
IMBALANCED = 10.0
# VTAB-1k holds 200 of 1,000 images out, ViT's Table 4 a tenth of Pets and Flowers; more than 10,000
# make evaluation slow without making it better (a standard error of half a point).
SMALL_DATA, SMALL_SHARE, SHARE, MOST_HELD_OUT = 1_000, 0.2, 0.1, 10_000
# Lines shown of a long list.
SHOWN = 20

Progress = Callable[[str, int], Callable[[int], None]]


@dataclasses.dataclass(frozen=True)
class OwnData:
    """Where the parts of a data set are.

    Attributes:
      specs: ``train``, ``val`` and perhaps ``test`` -> spec of a ``labelled`` source.
      split: how it was divided, in words.
      warnings: what the user should know, a line each.
    """

    specs: Mapping[str, dict[str, Any]]
    split: str
    warnings: tuple[str, ...] = ()

    def source(self, part: str) -> Labelled:
        """The source of a part."""
        return _source(self.specs[part], part)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source("train").class_names

    def count(self, part: str) -> int:
        """Examples of a part, 0 where there is none."""
        return len(self.source(part)) if part in self.specs else 0


def _source(spec: Mapping[str, Any], where: str) -> Labelled:
    return call(Labelled, {k: v for k, v in spec.items() if k != "kind"}, where)


def _spec(path: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "labelled", "path": path, **fields}


def locate(path: str, val: str | None = None) -> dict[str, str]:
    """Finds the parts of a data set: ``train`` and perhaps ``val`` and ``test`` -> path.

    A folder counts as split where it holds ``train`` with folders in it, and beside it
    nothing but other parts; else its folders are the classes.
    """
    top = pathlib.Path(path).expanduser()
    found = {"train": path}
    if top.is_dir():
        inner = [e.name for e in sorted(top.iterdir()) if e.is_dir() and not e.name.startswith((".", "__"))]
        parts = {p: n for n in inner for p, words in PART_FOLDERS.items() if n.lower() in words}
        known = {n for n in inner if any(n.lower() in words for words in PART_FOLDERS.values())}
        if "train" in parts and set(inner) == known and any(e.is_dir() for e in (top / parts["train"]).iterdir()):
            found = {part: str(pathlib.PurePath(path) / name) for part, name in parts.items()}
    if val is not None:
        found["val"] = val
    return found


def find(path: str, val: str | None = None, fraction: float | None = None) -> OwnData:
    """Finds the parts and holds validation images out where there are none; opens no image.

    Args:
      path: class folders, ``train/`` and ``val/`` of class folders, or a CSV.
      val: the same for validation, where it lies elsewhere.
      fraction: of each class to hold out; by default a fifth of a small data set, a tenth else.

    Raises:
      UserError: nothing there, fewer than two classes, or validation classes that training lacks.
    """
    if fraction is not None and not 0 < fraction < 1:
        raise UserError(f"--val-fraction {fraction}: expected a share between 0 and 1, such as 0.1.")
    where = locate(path, val)
    train = labelled.listing(where["train"])
    if len(train.classes) < 2:
        raise UserError(
            f"--data {path}: one class only ({train.classes[0]}); expected two or more.\n"
            + labelled.LAYOUT.format(path=path)
        )
    warnings = _stray(where)
    if "val" not in where and "test" in where:
        where["val"] = where.pop("test")
        warnings.append(
            f"There is no val/, so test/ is what the run is watched by ({where['val']}). Whoever chooses settings "
            "by it reports too good a number: keep a part of it aside, or make a val/."
        )
    if "val" in where:
        if fraction is not None:
            raise UserError(f"--val-fraction {fraction}: nothing to hold out, {where['val']} is the validation set.")
        specs = {part: _spec(where[part]) for part in PART_FOLDERS if part in where}
        for part in ("val", "test"):
            if part in specs:
                _match_classes(specs[part], train.classes, where[part], warnings)
        return OwnData(specs, f"as in the folders: {', '.join(where.values())}", tuple(warnings))
    total = len(train.names)
    share = fraction or min(SMALL_SHARE if total < SMALL_DATA else SHARE, MOST_HELD_OUT / total)
    specs = {part: _spec(where["train"], part=part, held_out=share) for part in ("train", "val")}
    if "test" in where:
        specs["test"] = _spec(where["test"])
        _match_classes(specs["test"], train.classes, where["test"], warnings)
    return OwnData(specs, f"{share:.3g} of each class held out, by a hash of the relative path", tuple(warnings))


def _match_classes(spec: dict[str, Any], classes: Sequence[str], path: str, warnings: list[str]) -> None:
    """Numbers the classes of a validation set as training does, also where some are absent."""
    found = labelled.listing(path).classes
    extra = [c for c in found if c not in classes]
    if extra:
        raise UserError(
            f"{path}: class {', '.join(extra[:5])} is not among those to train on ({', '.join(classes[:8])}"
            f"{', ...' if len(classes) > 8 else ''}). Give both the same class names."
        )
    if found != tuple(classes):
        spec["classes"] = tuple(classes)
        missing = [c for c in classes if c not in found]
        warnings.append(f"{path} has no images of {_some(missing)}: nothing is measured about them.")


def _stray(where: Mapping[str, str]) -> list[str]:
    lines = []
    for path in where.values():
        top = pathlib.Path(path).expanduser()
        loose = [e.name for e in sorted(top.iterdir()) if e.name.lower().endswith(SUFFIXES)] if top.is_dir() else []
        if loose:
            lines.append(f"{len(loose):,} images lie in {path} beside the class folders and are left out: {loose[0]}.")
    return lines


def inspect(data: OwnData, skip_unreadable: bool, progress: Progress | None = None) -> OwnData:
    """Opens every file once: leaves unreadable ones out where asked, and adds warnings.

    Args:
      data: from ``find``.
      skip_unreadable: leave them out instead of raising.
      progress: (what, how many files) -> function that is told how many are done.

    Raises:
      UserError: files that cannot be used, listed with the reason.
    """
    paths: dict[str, list[str]] = {}
    for part, spec in data.specs.items():
        paths.setdefault(spec["path"], []).append(part)
    specs = {part: dict(spec) for part, spec in data.specs.items()}
    bad: list[tuple[str, str]] = []
    digests: dict[str, bytes] = {}
    for path, parts in paths.items():
        found = labelled.listing(path)
        told = progress(f"checking {path}", len(found.names)) if progress else None
        result = survey(found.root, found.names, told)
        unnamed = f"not {' '.join(SUFFIXES)} by its name"
        bad += [(str(found.root / n), reason) for n, reason in result.unreadable]
        bad += [(str(found.root / n), unnamed) for n in found.others]
        for part in parts:
            if result.unreadable:
                specs[part]["exclude"] = tuple(n for n, _ in result.unreadable)
        digests |= {str(found.root / n): d for n, d in result.digests.items()}
    if bad and not skip_unreadable:
        raise UserError(
            f"{len(bad):,} of the files in the class folders cannot be used:\n"
            + _lines([f"{name}: {reason}" for name, reason in bad])
            + "\nMend, convert or delete them, or leave them out with --skip-unreadable."
        )
    whole = OwnData(specs, data.split)
    skipped = [f"Left out, {len(bad):,} files:\n" + _lines([f"{n}: {r}" for n, r in bad])] if bad else []
    return OwnData(specs, data.split, (*data.warnings, *skipped, *_counts(whole), *_twins(whole, digests)))


def _counts(data: OwnData) -> list[str]:
    """Warnings about classes with few images."""
    classes = data.class_names
    train = np.bincount(data.source("train").labels, minlength=len(classes))
    counts = train + np.bincount(data.source("val").labels, minlength=len(classes))
    if (train > 0).sum() < 2:
        raise UserError("fewer than two classes have images to train on.")
    lines = []
    tiny = [f"{classes[i]} ({counts[i]})" for i in np.argsort(counts, kind="stable") if counts[i] < TINY_CLASS]
    if tiny:
        lines.append(f"Fewer than {TINY_CLASS} images: {_some(tiny)}. Expect little of these classes.")
    full = np.flatnonzero(train > 0)
    least, most = full[train[full].argmin()], full[train[full].argmax()]
    if train[most] >= IMBALANCED * train[least]:
        lines.append(
            f"Imbalanced: {classes[most]} has {train[most]:,} images to train on, {classes[least]} {train[least]:,}. "
            "The model will favour the large classes: see the confusion matrix in report.html, not accuracy alone."
        )
    held = data.count("val")
    if not held:
        raise UserError("no image is left to validate on: no class has two. Add images, or give some with --val.")
    if held < 100:
        lines.append(f"Accuracy is measured on {held} images: one image is {100 / held:.1f} points.")
    return lines


def _twins(data: OwnData, digests: Mapping[str, bytes]) -> list[str]:
    """Warnings about the same content on both sides of the split, or in two classes."""
    part_of, class_of = {}, {}
    for part in data.specs:
        source = data.source(part)
        for i, label in enumerate(source.labels):
            name = source.describe(i)
            part_of[name], class_of[name] = part, source.class_names[label]
    across, torn = [], []
    for names in twins((n, digests[n]) for n in part_of if n in digests):
        if len({part_of[n] for n in names}) > 1:
            across.append(" = ".join(f"{n} ({part_of[n]})" for n in names[:4]))
        if len({class_of[n] for n in names}) > 1:
            torn.append(" = ".join(names[:4]))
    lines = []
    if across:
        lines.append(
            f"The same image is trained on and measured by, {len(across):,} times: accuracy will look too good. "
            "Delete the copies.\n" + _lines(across)
        )
    if torn:
        lines.append(f"The same image has two classes, {len(torn):,} times: one label is wrong.\n" + _lines(torn))
    return lines


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _lines(rows: Sequence[str]) -> str:
    shown = [f"  {row}" for row in rows[:SHOWN]]
    return "\n".join(shown + ([f"  ... and {len(rows) - SHOWN:,} more"] if len(rows) > SHOWN else []))
