"""A teacher's answers on disk: one row an image, and which rows to train on.

A folder holds ``probabilities.npy`` (float16 [N, classes]), ``label.npy`` (int32 [N]),
``confidence.npy`` (float32 [N]) and ``pseudo_labels.json`` (what wrote them, and of which
source). It appears whole or not at all. Reading maps the files into memory.
"""

import json
import os
import pathlib
import shutil
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap

from vitax.core.errors import UserError

ABOUT = "pseudo_labels.json"


class PseudoLabels(NamedTuple):
    """What a teacher said about N images.

    Attributes:
      probabilities: float16 [N, classes].
      label: int32 [N], the likeliest class.
      confidence: float32 [N], its probability.
      about: ``source`` (fingerprint), ``class_names``, ``teacher``, ``num_classes``.
    """

    probabilities: np.ndarray
    label: np.ndarray
    confidence: np.ndarray
    about: dict[str, Any]


def save(folder: str | os.PathLike, batches: Iterable[np.ndarray], num_examples: int, about: dict[str, Any]) -> None:
    """Writes probabilities batch by batch.

    Args:
      folder: must not exist.
      batches: float32 [n, classes] each, in the order of the source.
      num_examples: N, over all batches.
      about: see ``PseudoLabels``.

    Raises:
      UserError: the folder exists.
    """
    folder = pathlib.Path(folder).expanduser()
    check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        shape = (num_examples, about["num_classes"])
        probabilities = open_memmap(part / "probabilities.npy", "w+", np.float16, shape)
        label, confidence = np.empty(num_examples, np.int32), np.empty(num_examples, np.float32)
        done = 0
        for batch in batches:
            rows = slice(done, done + len(batch))
            probabilities[rows], label[rows], confidence[rows] = batch, batch.argmax(1), batch.max(1)
            done += len(batch)
        assert done == num_examples, (done, num_examples)
        probabilities.flush()
        np.save(part / "label.npy", label)
        np.save(part / "confidence.npy", confidence)
        (part / ABOUT).write_text(json.dumps(about, indent=1))
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_free(folder: pathlib.Path) -> None:
    """Refuses a folder that is there: labels are never overwritten.

    Raises:
      UserError: it is there.
    """
    if folder.exists():
        raise UserError(f"{folder} exists; labels are never overwritten. Name another folder, or delete this one.")


def load(folder: str | os.PathLike) -> PseudoLabels:
    """Opens what ``save`` wrote, without reading the probabilities.

    Raises:
      UserError: no such folder, or not all of it is there.
    """
    path = pathlib.Path(folder).expanduser()
    if not (path / ABOUT).is_file():
        raise UserError(
            f"pseudo_labelled: no labels in {folder} (looked from {os.getcwd()} for {ABOUT}). "
            "Write them: vitax pseudo-label --checkpoint TEACHER --config RECIPE."
        )
    try:
        about = json.loads((path / ABOUT).read_text())
        label, confidence = np.load(path / "label.npy"), np.load(path / "confidence.npy")
        probabilities = np.load(path / "probabilities.npy", mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"pseudo_labelled: the labels in {folder} are damaged ({error}). Write them again.") from error
    if not len(label) == len(confidence) == len(probabilities):
        raise UserError(f"pseudo_labelled: the files in {folder} differ in length. Write them again.")
    return PseudoLabels(probabilities, label, confidence, about)


def choose(label: np.ndarray, confidence: np.ndarray, min_confidence: float, per_class: int | None) -> np.ndarray:
    """Which images to train on.

    Args:
      label: int32 [N].
      confidence: float32 [N].
      min_confidence: those below it are left out.
      per_class: of each class, the most confident; classes with fewer are repeated from
        their most confident on until they have as many. A class without any stays empty.

    Returns:
      int64, sorted; repeats one after another.
    """
    kept = np.flatnonzero(confidence >= min_confidence)
    if per_class is None:
        return kept
    if per_class < 1:
        raise UserError(f"pseudo_labelled: per_class={per_class}; expected at least 1, or None.")
    chosen = []
    for value in np.unique(label[kept]):
        members = kept[label[kept] == value]
        best = members[np.argsort(-confidence[members], kind="stable")]
        chosen.append(np.resize(best, per_class))  # cut, or repeated from the start
    return np.sort(np.concatenate(chosen)) if chosen else kept
