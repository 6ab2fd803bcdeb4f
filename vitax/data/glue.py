"""Texts with labels out of prepared TensorFlow Datasets, and the tasks of GLUE."""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import numpy as np

from vitax.data.records import Prepared


class Task(NamedTuple):
    """A task of GLUE as TFDS has it.

    Attributes:
      features: what holds the text, or the two texts.
      num_classes: 1 for regression.
      train: examples to train on.
      val: the split to evaluate on, and its examples.
    """

    features: tuple[str, ...]
    num_classes: int
    train: int
    val: tuple[str, int]


# Sizes as TFDS states them (glue 2.0.0).
GLUE: dict[str, Task] = {
    "cola": Task(("sentence",), 2, 8_551, ("validation", 1_043)),
    "mnli": Task(("premise", "hypothesis"), 3, 392_702, ("validation_matched", 9_815)),
    "mrpc": Task(("sentence1", "sentence2"), 2, 3_668, ("validation", 408)),
    "qnli": Task(("question", "sentence"), 2, 104_743, ("validation", 5_463)),
    "qqp": Task(("question1", "question2"), 2, 363_849, ("validation", 40_430)),
    "rte": Task(("sentence1", "sentence2"), 2, 2_490, ("validation", 277)),
    "sst2": Task(("sentence",), 2, 67_349, ("validation", 872)),
    "stsb": Task(("sentence1", "sentence2"), 1, 5_749, ("validation", 1_500)),
}


@dataclasses.dataclass(frozen=True)
class TfdsText(Prepared):
    """Texts of a data set prepared by ``tensorflow_datasets`` with ``file_format="array_record"``.

    Attributes:
      name: e.g. ``glue/sst2`` or ``imdb_reviews``; or empty where ``data_dir`` is itself the
        prepared folder.
      split: with TFDS' own slices: ``train[:90%]``.
      data_dir: where data sets lie prepared; None for TFDS' default (``~/tensorflow_datasets``).
      text_keys: features that hold the text, or the two texts; left out for those of a
        task of GLUE, and ``text`` elsewhere.
      label_key: feature that holds the label.
      num_classes: given by the recipe's ``data.num_classes``; 1 for regression.
    """

    num_classes: int
    name: str = ""
    split: str = "train"
    data_dir: str | None = None
    text_keys: tuple[str, ...] | None = None
    label_key: str = "label"

    _HINT: ClassVar[str] = "text_keys and label_key"

    @functools.cached_property
    def _texts(self) -> tuple[str, ...]:
        task = GLUE.get(self.name.removeprefix("glue/"))
        return self.text_keys or (task.features if task else ("text",))

    @property
    def _features(self) -> tuple[str, ...]:
        return (*self._texts, self.label_key)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int32 [N], or float32 [N] for regression; reads all records once."""
        kind = np.float32 if self.num_classes == 1 else np.int32
        return np.array([self._data[i][self.label_key] for i in range(len(self))], kind)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """As TFDS has them."""
        names = getattr(self._builder.info.features[self.label_key], "names", None)
        return None if names is None else tuple(names)

    def __len__(self) -> int:
        return len(self._data)

    def texts(self, index: int) -> tuple[bytes, ...]:
        """The text of an example, and its pair where there is one."""
        record = self._data[int(index)]
        return tuple(record[key] for key in self._texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"texts": self.texts(index), "label": self.labels[index]}

    def fingerprint(self) -> dict[str, Any]:
        return {
            "kind": "tfds_text",
            "name": self._builder.info.full_name,
            "split": self.split,
            "features": list(self._features),
            "num_examples": len(self),
        }

    def describe(self, index: int) -> str:
        return f"example {index} of tfds {self._builder.info.full_name} {self.split}"
