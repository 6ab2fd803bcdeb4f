"""Texts, and pairs of them, of data sets that TFDS has prepared."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from vitax.data.pairs import Pairs
from vitax.data.records import Prepared
from vitax.data.text import Windows

# Records that are read at a time.
_MANY = 1024


def _rows(prepared: Prepared) -> Iterator[list[str]]:
    data = prepared.data
    for first in range(0, len(data), _MANY):
        for record in data.__getitems__(list(range(first, min(first + _MANY, len(data))))):
            values = [record[feature] for feature in prepared.features]
            yield [v.decode() if isinstance(v, bytes) else str(v) for v in values]


@dataclasses.dataclass(frozen=True)
class TfdsText(Windows):
    """Documents of a data set prepared by TFDS as ArrayRecord, such as ``wiki40b/en``.

    Attributes:
      tokenizer: given by the recipe's ``data.tokenizer``.
      length: T, given by ``data.length``.
      name: as of ``data.records.Prepared``.
      feature: that holds the text.
      records: the split with TFDS' own slices, ``train[:90%]``.
      data_dir: as of ``data.records.Prepared``.
      split: a slice of the documents of these records.
    """

    tokenizer: Any
    length: int
    name: str
    feature: str = "text"
    records: str = "train"
    data_dir: str | None = None
    split: str = ""

    def _documents(self) -> Iterator[tuple[str, bytes]]:
        prepared = Prepared(self.name, self.records, self.data_dir, (self.feature,), "feature")
        for (text,) in _rows(prepared):
            yield self.name, text.encode()


@dataclasses.dataclass(frozen=True)
class TfdsPairs(Pairs):
    """Translations prepared by TFDS as ArrayRecord, such as ``wmt14_translate/de-en``.

    Attributes:
      tokenizer: given by the recipe's ``data.tokenizer``.
      length: tokens of a row, given by ``data.length``.
      name: as of ``data.records.Prepared``.
      source_feature: the language of the sentences, ``en``.
      target_feature: that of their translations, ``de``.
      records: the split with TFDS' own slices, ``train[:90%]``.
      data_dir: as of ``data.records.Prepared``.
      split: a slice of the pairs of these records.
    """

    tokenizer: Any
    length: int
    name: str
    source_feature: str
    target_feature: str
    records: str = "train"
    data_dir: str | None = None
    split: str = ""

    def _pairs(self) -> tuple[list[str], list[str]]:
        features = (self.source_feature, self.target_feature)
        prepared = Prepared(self.name, self.records, self.data_dir, features, "source_feature and target_feature")
        sources: list[str] = []
        targets: list[str] = []
        for source, target in _rows(prepared):
            sources.append(source)
            targets.append(target)
        return sources, targets
