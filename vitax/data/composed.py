"""Sources made of sources: several end to end, and one whose labels a model wrote."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitax.core.errors import UserError
from vitax.data import pseudo_labels


def soft_targets(source: Any, indices: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """float32 [B, num_classes]: what a source says about each class; 1 at the label where it says no more.

    Args:
      source: any; ``targets(indices, labels, num_classes)`` where it knows probabilities.
      indices: int [B], of its examples.
      labels: int [B], theirs.
      num_classes: width of the result.
    """
    if hasattr(source, "targets"):
        return source.targets(indices, labels, num_classes)
    rows = np.zeros((len(labels), num_classes), np.float32)
    rows[np.arange(len(labels)), labels] = 1.0
    return rows


@dataclasses.dataclass(frozen=True)
class Concat:
    """Several sources end to end, each as often as asked for.

    Under ``shuffle`` a batch mixes them in proportion to their lengths times repeats, in
    expectation; an epoch is one pass over all of it.

    Attributes:
      sources: name -> source, in this order.
      repeats: name -> how often it comes in an epoch; 1 where left out.
    """

    sources: Mapping[str, Any]
    repeats: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.sources:
            raise UserError("concat: no sources; expected sources={NAME: {kind: ...}, ...}.")
        for name, times in self.repeats.items():
            if name not in self.sources:
                raise UserError(f"concat: repeats.{name}, but the sources are {', '.join(self.sources)}.")
            if isinstance(times, bool) or not isinstance(times, int) or times < 1:
                raise UserError(f"concat: repeats.{name}={times!r}; expected a whole number of at least 1.")

    @functools.cached_property
    def _parts(self) -> tuple[Any, ...]:
        return tuple(self.sources.values())

    @functools.cached_property
    def _lengths(self) -> np.ndarray:
        return np.array([len(part) for part in self._parts], np.int64)

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """int64 [sources]: one past the last example of each, repeats included."""
        return np.cumsum(self._lengths * [self.repeats.get(name, 1) for name in self.sources])

    @functools.cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """Those of the sources that know them, which must agree."""
        known = {n: tuple(s.class_names) for n, s in self.sources.items() if getattr(s, "class_names", None)}
        if len(set(known.values())) > 1:
            shown = "; ".join(f"{name}: {', '.join(names[:5])}" for name, names in known.items())
            raise UserError(f"concat: the sources number their classes differently ({shown}).")
        return next(iter(known.values()), None)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _place(self, indices: Any) -> tuple[np.ndarray, np.ndarray]:
        """Which source each example is of, and which of its examples."""
        indices = np.asarray(indices, np.int64)
        part = np.searchsorted(self._ends, indices, side="right")
        first = np.concatenate([[0], self._ends[:-1]])[part]
        return part, (indices - first) % self._lengths[part]

    def __getitem__(self, index: int) -> dict[str, Any]:
        part, inner = self._place([index])
        return self._parts[part[0]][int(inner[0])]

    def describe(self, index: int) -> str:
        part, inner = self._place([index])
        return self._parts[part[0]].describe(int(inner[0]))

    @property
    def gather(self) -> Any:
        """As in ``data.sources``, where every source has it."""
        if not all(hasattr(part, "gather") for part in self._parts):
            raise AttributeError("gather")
        return self._gather

    def _gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        part, inner = self._place(indices)
        out: dict[str, np.ndarray] = {}
        for number, source in enumerate(self._parts):
            rows = np.flatnonzero(part == number)
            if not len(rows):
                continue
            for name, values in source.gather(inner[rows]).items():
                if name not in out:
                    out[name] = np.empty((len(part), *values.shape[1:]), values.dtype)
                if values.shape[1:] != out[name].shape[1:]:
                    raise UserError(
                        f"concat: {list(self.sources)[number]} has examples of shape {values.shape[1:]}, a source "
                        f"before it {out[name].shape[1:]}; expected arrays of one shape."
                    )
                out[name][rows] = values
        return out

    def targets(self, indices: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """float32 [B, num_classes], see ``soft_targets``."""
        part, inner = self._place(indices)
        out = np.empty((len(part), num_classes), np.float32)
        for number, source in enumerate(self._parts):
            rows = np.flatnonzero(part == number)
            if len(rows):
                out[rows] = soft_targets(source, inner[rows], labels[rows], num_classes)
        return out

    def fingerprint(self) -> dict[str, Any]:
        return {
            "kind": "concat",
            "sources": {name: source.fingerprint() for name, source in self.sources.items()},
            "repeats": {name: self.repeats.get(name, 1) for name in self.sources},
        }


@dataclasses.dataclass(frozen=True)
class PseudoLabelled:
    """Images of another source under the labels that a model gave them; its own are not looked at.

    ``vitax pseudo-label`` writes the labels: every image's probabilities. What is kept of
    them is decided here, so another threshold needs no new pass of the teacher.

    Attributes:
      source: where the images are.
      labels: folder that ``vitax pseudo-label`` wrote.
      min_confidence: keep images whose likeliest class has at least this probability
        (0.3 in Noisy Student).
      per_class: keep this many of each class, the most confident; where fewer are left,
        these are repeated to as many. None keeps all, once.

    Reference: Xie et al., arXiv:1911.04252, section 3.1 ("Data filtering and balancing").
    """

    source: Any
    labels: str
    min_confidence: float = 0.0
    per_class: int | None = None

    @functools.cached_property
    def _written(self) -> pseudo_labels.PseudoLabels:
        written = pseudo_labels.load(self.labels)
        if written.about["source"] != json.loads(json.dumps(self.source.fingerprint())):
            raise UserError(
                f"pseudo_labelled: the labels in {self.labels} are of another source than this recipe's "
                "(data.source...source). Write them again: vitax pseudo-label --checkpoint TEACHER --config RECIPE."
            )
        return written

    @functools.cached_property
    def _chosen(self) -> np.ndarray:
        """int64 [N]: examples of the source, in its order, repeats one after another."""
        chosen = pseudo_labels.choose(
            self._written.label, self._written.confidence, self.min_confidence, self.per_class
        )
        if not len(chosen):
            raise UserError(
                f"pseudo_labelled: no label in {self.labels} has a confidence of {self.min_confidence} "
                f"(the highest is {self._written.confidence.max():.3f}). Lower min_confidence."
            )
        return chosen

    @property
    def class_names(self) -> tuple[str, ...] | None:
        names = self._written.about["class_names"]
        return tuple(names) if names else None

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> dict[str, Any]:
        at = int(self._chosen[index])
        return {**self.source[at], "label": int(self._written.label[at])}

    def describe(self, index: int) -> str:
        return self.source.describe(int(self._chosen[index]))

    @property
    def gather(self) -> Any:
        """As in ``data.sources``, where the source has it."""
        if not hasattr(self.source, "gather"):
            raise AttributeError("gather")
        return self._gather

    def _gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        chosen = self._chosen[indices]
        return {**self.source.gather(chosen), "label": self._written.label[chosen]}

    def targets(self, indices: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """float32 [B, num_classes]: the teacher's probabilities."""
        rows = self._written.probabilities[self._chosen[indices]].astype(np.float32)
        if rows.shape[1] != num_classes:
            raise UserError(f"pseudo_labelled: {self.labels} has {rows.shape[1]} classes, the recipe {num_classes}.")
        return rows / rows.sum(axis=1, keepdims=True)

    def fingerprint(self) -> dict[str, Any]:
        return {
            "kind": "pseudo_labelled",
            "source": self.source.fingerprint(),
            "min_confidence": self.min_confidence,
            "per_class": self.per_class,
            "num_examples": len(self),
            "labels_digest": hashlib.blake2b(self._written.label.tobytes(), digest_size=8).hexdigest(),
            "teacher": self._written.about["teacher"],
        }
