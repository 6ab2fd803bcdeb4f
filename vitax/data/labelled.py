"""Image files with class names: class folders or a CSV, and a share of each class held out."""

import csv
import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from vitax.core.errors import UserError, suggest
from vitax.data.folder import SUFFIXES

# What the two columns are called elsewhere (Kaggle, Hugging Face, AutoML); anything else is no header.
PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_id")
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target", "labels")
LAYOUT = """Expected class folders:
  {path}/
    cat/  1.jpg  2.png ...
    dog/  3.webp ...
or the same inside {path}/train/ and {path}/val/, or a CSV with lines "path,label" (paths relative to the CSV)."""


class Listing(NamedTuple):
    """Files and their classes, nothing opened.

    Attributes:
      root: what the names are relative to.
      classes: class names, sorted; label i is ``classes[i]``.
      names: sorted, with ``/`` between folders, so that the listing is the same on every machine.
      labels: int32 [N].
      others: names in class folders that are no image by their suffix (hidden files left out).
    """

    root: pathlib.Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    others: tuple[str, ...]


def listing(path: str | os.PathLike) -> Listing:
    """Lists class folders, or the lines of a CSV.

    Raises:
      UserError: nothing there, no class folders, no images, or a bad line.
    """
    top = pathlib.Path(path).expanduser()
    if top.is_dir():
        return _class_folders(top, str(path))
    if top.is_file() and top.suffix.lower() in (".csv", ".tsv"):
        return _lines(top)
    if top.is_file():
        raise UserError(f"{path} is a file, and not a .csv or .tsv. {LAYOUT.format(path='DIR')}")
    near = suggest(top.name, [p.name for p in top.parent.iterdir()]) if top.parent.is_dir() else ""
    raise UserError(f"no folder or CSV {path} (looked from {os.getcwd()}).{near}\n{LAYOUT.format(path=path)}")


def _class_folders(root: pathlib.Path, shown: str) -> Listing:
    classes = tuple(sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith((".", "__"))))
    found: list[tuple[str, int]] = []
    others = []
    for label, name in enumerate(classes):
        for folder, inner, files in os.walk(root / name):
            inner[:] = [f for f in inner if not f.startswith((".", "__"))]
            relative = pathlib.PurePath(folder).relative_to(root).as_posix()
            for file in files:
                if file.lower().endswith(SUFFIXES) and not file.startswith("."):
                    found.append((f"{relative}/{file}", label))
                elif not file.startswith(".") and file not in ("Thumbs.db", "desktop.ini"):
                    others.append(f"{relative}/{file}")
    if not found:
        loose = sum(e.name.lower().endswith(SUFFIXES) for e in os.scandir(root))
        has = (
            f"{loose:,} images lie in it, but in no class folder"
            if loose
            else f"it holds {', '.join(classes[:8]) or 'no folders'}"
        )
        raise UserError(
            f"no images ({', '.join(SUFFIXES)}) in class folders of {shown} (looked from {os.getcwd()}): {has}.\n"
            + LAYOUT.format(path=shown)
        )
    found.sort()
    names, labels = zip(*found)
    return Listing(root, classes, names, np.array(labels, np.int32), tuple(sorted(others)))


def _lines(path: pathlib.Path) -> Listing:
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error}).") from error
    rows = list(csv.reader(text.splitlines(), delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    columns, first = _columns(rows, path)
    seen: dict[str, tuple[str, int]] = {}
    for number, row in enumerate(rows[first:], start=first + 1):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) <= max(columns) or not all(row[c].strip() for c in columns):
            raise UserError(f'{path}, line {number}: expected "path,label", got "{",".join(row)}".')
        name, label = (row[c].strip() for c in columns)
        before = seen.setdefault(name, (label, number))
        if before[0] != label:
            raise UserError(
                f'{path}, line {number}: {name} has the label "{label}", and "{before[0]}" on line {before[1]}. '
                "An image has one class: delete one of the lines."
            )
    if not seen:
        raise UserError(f'{path} holds no lines "path,label".')
    classes = tuple(sorted({label for label, _ in seen.values()}))
    number_of = {name: i for i, name in enumerate(classes)}
    names = tuple(sorted(seen))
    labels = np.array([number_of[seen[n][0]] for n in names], np.int32)
    return Listing(path.parent, classes, names, labels, ())


def _columns(rows: Sequence[Sequence[str]], path: pathlib.Path) -> tuple[tuple[int, int], int]:
    """Columns of path and label, and the first line of data (a header is optional)."""
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    paths, labels = ([i for i, cell in enumerate(head) if cell in names] for names in (PATH_COLUMNS, LABEL_COLUMNS))
    if paths and labels:
        return (paths[0], labels[0]), 1
    if (paths or labels) and not (path.parent / rows[0][0].strip()).is_file():
        raise UserError(
            f"{path}: the header {','.join(rows[0])} lacks a column for the {'label' if paths else 'path'}. "
            'Expected "path,label".'
        )
    return (0, 1), 0


def rank(name: str) -> bytes:
    """What the split sorts by: a hash of the relative path, the same everywhere and for ever."""
    return hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()


def held_out(names: Sequence[str], labels: np.ndarray, share: float) -> np.ndarray:
    """Chooses a share of each class, by a hash of the relative paths.

    The choice does not depend on the order of the files, the machine, or a seed, and a
    file that is added moves at most one other across.

    Args:
      names: relative paths.
      labels: int [N].
      share: of each class, rounded to whole images; at least one of a class of two or
        more, and never all of it.

    Returns:
      bool [N], True = held out.
    """
    chosen = np.zeros(len(names), bool)
    for label in np.unique(labels):
        members = sorted(np.flatnonzero(labels == label), key=lambda i: (rank(names[int(i)]), names[int(i)]))
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        chosen[members[:count]] = True
    return chosen


@dataclasses.dataclass(frozen=True)
class Labelled:
    """JPEG, PNG and WebP files in class folders or listed in a CSV, with a part of each class held out.

    Attributes:
      path: a folder with one folder a class, or a CSV (TSV) with lines ``path,label`` (a
        header is optional, paths are relative to the CSV); ``~`` and relative paths work.
      part: ``all``, or ``train`` (what is not held out) or ``val`` (what is).
      held_out: share of each class that is ``val``, chosen by a hash of the relative path.
      exclude: names, relative to ``path``, that are left out before the split.
      classes: class names in the order of their labels, where they are not simply the
        sorted ones found (a validation folder that lacks a class).
    """

    path: str
    part: Literal["all", "train", "val"] = "all"
    held_out: float = 0.0
    exclude: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None

    @functools.cached_property
    def _chosen(self) -> tuple[pathlib.Path, tuple[str, ...], list[str], np.ndarray]:
        """Root, class names, names and labels int32 [N] of this part."""
        if self.part != "all" and not 0 < self.held_out < 1:
            raise UserError(f"labelled: held_out={self.held_out}; part={self.part!r} needs a share between 0 and 1.")
        found = listing(self.path)
        names, labels, classes = found.names, found.labels, found.classes
        if self.classes is not None:
            unknown = [c for c in classes if c not in self.classes]
            if unknown:
                known = ", ".join(self.classes[:8])
                raise UserError(f"labelled: {self.path} has the class {unknown[0]}, which is none of {known}.")
            labels = np.array([self.classes.index(classes[label]) for label in labels], np.int32)
            classes = self.classes
        excluded = set(self.exclude)
        keep = np.array([n not in excluded for n in names], bool)
        names, labels = tuple(n for n, k in zip(names, keep) if k), labels[keep]
        if self.part != "all":
            mask = held_out(names, labels, self.held_out) == (self.part == "val")
            names, labels = tuple(n for n, m in zip(names, mask) if m), labels[mask]
        return found.root, classes, list(names), labels

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._chosen[1]

    @property
    def names(self) -> list[str]:
        """Relative paths, in the order of the examples."""
        return self._chosen[2]

    @property
    def labels(self) -> np.ndarray:
        """int32 [N]."""
        return self._chosen[3]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file = self._chosen[0] / self.names[index]
        try:
            return {"image": file.read_bytes(), "label": int(self.labels[index])}
        except OSError as error:
            raise UserError(f"cannot read {file} ({error.strerror}).") from error

    def describe(self, index: int) -> str:
        return str(self._chosen[0] / self.names[index])

    def fingerprint(self) -> dict[str, Any]:
        _, classes, names, labels = self._chosen
        lines = [*classes, *(f"{label} {name}" for label, name in zip(labels, names))]
        text = "\n".join(lines).encode(errors="surrogateescape")
        return {
            "kind": "labelled",
            "part": self.part,
            "held_out": self.held_out,
            "num_examples": len(names),
            "num_classes": len(classes),
            "names_digest": hashlib.blake2b(text, digest_size=8).hexdigest(),
        }
