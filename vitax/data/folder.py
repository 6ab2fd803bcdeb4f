"""Images in class folders: ``PATH/[SPLIT/]CLASS/IMAGE``."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from vitax.core import paths
from vitax.core.errors import UserError, suggest
from vitax.data import splits

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LAYOUT = """  {path}/
    {split}cat/  1.jpg  2.png ...
    {split}dog/  3.webp ..."""


def _rank(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def _walk(top: pathlib.Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """(path below ``top`` with a slash in front, folders, files) of each folder."""
    # pathlib has it from Python 3.12 on; paths of object stores always, some without the scheme.
    walk: Any = top.walk() if paths.is_url(top) else os.walk(top)  # type: ignore[attr-defined]
    start = None
    for folder, inner, inside in walk:
        start = len(str(folder)) if start is None else start
        yield str(folder)[start:], inner, inside


@dataclasses.dataclass(frozen=True)
class Folder:
    """JPEG, PNG and WebP files in one folder a class; classes are numbered in sorted order.

    Attributes:
      path: the folder; ``~``, paths relative to the working directory and ``gs://`` work.
      split: sub-folder such as ``train``, with or without a slice (``train[:90%]``);
        ``""`` or ``[:90%]`` where the class folders lie directly in ``path``. A slice
        is taken of a fixed mixed order of the files, so every class is in it and
        ``[:90%]`` and ``[90%:]`` are a deterministic split into two.
    """

    path: str
    split: str = ""

    @functools.cached_property
    def _root(self) -> pathlib.Path:
        return paths.parse(self.path) / splits.parse(self.split, f"folder {self.path}")[0]

    def _layout(self) -> str:
        base = splits.parse(self.split, "folder")[0]
        return "Expected:\n" + LAYOUT.format(path=self.path, split=f"{base}/" if base else "")

    @functools.cached_property
    def _listing(self) -> tuple[tuple[str, ...], list[str], np.ndarray, str]:
        """Class names, relative paths, labels int32 [N], digest of the names."""
        root, top = self._root, paths.parse(self.path)
        if not root.is_dir():
            beside = [p.name for p in top.parent.iterdir()] if not paths.is_url(top) and top.parent.is_dir() else []
            near = suggest(top.name, beside)
            if root != top and top.is_dir():
                found = sorted(p.name for p in top.iterdir() if p.is_dir())
                near = f" {self.path} holds {', '.join(found[:10]) or 'no folders'}.{suggest(root.name, found)}"
            raise UserError(f"folder: no folder {root} (looked from {os.getcwd()}).{near} {self._layout()}")
        classes, names, labels = [], [], []
        for entry in sorted(e.name for e in root.iterdir() if not e.name.startswith(".") and e.is_dir()):
            files = []
            for folder, inner, inside in _walk(root / entry):
                inner.sort()
                relative = entry + folder
                files += [f"{relative}/{f}" for f in sorted(inside) if f.lower().endswith(SUFFIXES)]
            classes.append(entry)
            names += files
            labels += [len(classes) - 1] * len(files)
        if not names:
            raise UserError(
                f"folder: no images ({', '.join(SUFFIXES)}) in class folders of {root} (looked from {os.getcwd()}). "
                + self._layout()
            )
        part = splits.parse(self.split, "folder")[1]
        if part is not None:
            # Mixed first: a slice of the sorted list would lack whole classes.
            start, stop = splits.bounds(part, len(names))
            chosen = sorted(sorted(range(len(names)), key=lambda i: _rank(names[i]))[start:stop])
            names, labels = [names[i] for i in chosen], [labels[i] for i in chosen]
        digest = hashlib.blake2b("\n".join([*classes, *names]).encode(), digest_size=8).hexdigest()
        return tuple(classes), names, np.array(labels, np.int32), digest

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._listing[0]

    def __len__(self) -> int:
        return len(self._listing[1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        _, names, labels, _ = self._listing
        try:
            with (self._root / names[index]).open("rb") as file:
                return {"image": file.read(), "label": int(labels[index])}
        except OSError as error:
            raise UserError(f"folder: cannot read {self._root / names[index]} ({error.strerror}).") from error

    def describe(self, index: int) -> str:
        return str(self._root / self._listing[1][index])

    def fingerprint(self) -> dict[str, Any]:
        classes, names, _, digest = self._listing
        return {
            "kind": "folder",
            "split": self.split,
            "num_examples": len(names),
            "num_classes": len(classes),
            "names_digest": digest,
        }
