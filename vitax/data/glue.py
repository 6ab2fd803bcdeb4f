"""Texts with labels out of prepared TensorFlow Datasets, and the tasks of GLUE."""

import dataclasses
import functools
from typing import Any, NamedTuple

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
class TfdsLabelledText:
    """Texts with labels of a data set prepared by TFDS as ArrayRecord, such as ``glue/sst2``.

    Attributes:
      name: as of ``data.records.Prepared``.
      split: likewise.
      data_dir: likewise.
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

    @functools.cached_property
    def _texts(self) -> tuple[str, ...]:
        task = GLUE.get(self.name.removeprefix("glue/").partition(":")[0])
        return self.text_keys or (task.features if task else ("text",))

    @functools.cached_property
    def prepared(self) -> Prepared:
        """The records."""
        features = (*self._texts, self.label_key)
        return Prepared(self.name, self.split, self.data_dir, features, "text_keys and label_key")

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int32 [N], or float32 [N] for regression; reads all records once."""
        kind = np.float32 if self.num_classes == 1 else np.int32
        return np.array([self.prepared.data[i][self.label_key] for i in range(len(self))], kind)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """As TFDS has them."""
        names = getattr(self.prepared.builder.info.features[self.label_key], "names", None)
        return None if names is None else tuple(names)

    def __len__(self) -> int:
        return len(self.prepared.data)

    def texts(self, index: int) -> tuple[bytes, ...]:
        """The text of an example, and its pair where there is one."""
        record = self.prepared.data[int(index)]
        return tuple(record[key] for key in self._texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"texts": self.texts(index), "label": self.labels[index]}

    def fingerprint(self) -> dict[str, Any]:
        return {
            "kind": "tfds_labelled_text",
            "name": self.prepared.builder.info.full_name,
            "split": self.split,
            "features": list(self.prepared.features),
            "num_examples": len(self),
        }

    def describe(self, index: int) -> str:
        return f"example {index} of tfds {self.prepared.builder.info.full_name} {self.split}"
