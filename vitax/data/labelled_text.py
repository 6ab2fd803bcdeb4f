"""Texts, or pairs of them, with a label: ``LABELLED_TEXT_SOURCES``.

A source offers ``__len__()``; ``texts(i)``, one or two UTF-8 texts; ``labels``, int32 [N]
classes or, for regression, float32 [N]; ``class_names``; ``fingerprint()``; ``describe(i)``.
"""

import csv
import dataclasses
import functools
import hashlib
import io
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from vitax.core.errors import UserError, suggest
from vitax.data import bible, document_files, order, splits
from vitax.data.glue import TfdsLabelledText


class _Row(NamedTuple):
    place: str
    texts: tuple[bytes, ...]
    label: Any


def _table(file: pathlib.Path, suffix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a CSV or TSV, each with its place; None in the columns that a short row lacks."""
    # Quotes mean nothing in a TSV, as GLUE writes them.
    how: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if suffix == ".tsv" else {}
    number = 0
    try:
        reader = csv.DictReader(io.StringIO(document_files.text(file), newline=""), **how)
        for number, row in enumerate(reader, 1):
            yield f"{file}, row {number}", {k: v for k, v in row.items() if k is not None}
    except csv.Error as error:
        raise UserError(f"{file}: cannot be read as a table behind row {number} ({error}).") from error


@dataclasses.dataclass(frozen=True)
class TextTable:
    """A table of texts: CSV or TSV with a header, or JSON lines; gzipped or not.

    Attributes:
      path: a file whose name ends in .csv, .tsv or .jsonl (and .gz).
      text: the column that holds the text.
      pair: the column of the second text; None for single texts.
      label: the column of the label.
      classes: names of the classes in the order of their numbers; None for those in the
        file, sorted. State them where files of one task hold different ones.
      split: a slice of the rows, such as ``[:90%]``.
      num_classes: given by the recipe's ``data.num_classes``; 1 for regression.
    """

    path: str
    num_classes: int
    text: str = "text"
    pair: str | None = None
    label: str = "label"
    classes: tuple[str, ...] | None = None
    split: str = ""

    @functools.cached_property
    def _rows(self) -> list[_Row]:
        file = pathlib.Path(self.path).expanduser()
        if not file.is_file():
            raise UserError(f"data.source.path: {self.path}: no such file. Expected .csv, .tsv or .jsonl.")
        suffix = pathlib.Path(file.name.removesuffix(".gz")).suffix.lower()
        if suffix not in (".csv", ".tsv", ".jsonl"):
            raise UserError(f"data.source.path: {self.path}: expected a name that ends in .csv, .tsv or .jsonl.")
        columns = [c for c in (self.text, self.pair) if c is not None]
        rows: list[_Row] = []
        for place, row in document_files.rows([file]) if suffix == ".jsonl" else _table(file, suffix):
            for name, column in (("text", self.text), ("pair", self.pair), ("label", self.label)):
                if not rows and column is not None and column not in row:
                    raise UserError(
                        f'data.source.{name}: {self.path} has no column "{column}".{suggest(column, row)} '
                        f"It has {', '.join(row)}."
                    )
            if row.get(self.label) in (None, ""):
                raise UserError(f'{place}: has no label (column "{self.label}").')
            texts = tuple(document_files.text_of(row, place, column) for column in columns)
            rows.append(_Row(place, texts, row[self.label]))
        return rows

    @functools.cached_property
    def _part(self) -> tuple[int, int]:
        return splits.bounds(splits.parse(self.split, "text table")[1], len(self._rows))

    @functools.cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """Stated, or found in all rows (not those of the split alone)."""
        if self.num_classes == 1:
            return None
        return self.classes or tuple(sorted({str(row.label) for row in self._rows}))

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int32 [N], or float32 [N] for regression.

        Raises:
          UserError: a label that is no number, or none of the stated classes; says in which row.
        """
        start, stop = self._part
        names = self.class_names
        found: list[Any] = []
        for place, _, value in self._rows[start:stop]:
            try:
                found.append(float(value) if names is None else names.index(str(value)))
            except (TypeError, ValueError):
                expected = "a number (num_classes is 1)" if names is None else f"one of {', '.join(names)}"
                raise UserError(f"{place}: label {value!r}; expected {expected}.") from None
        return np.array(found, np.float32 if names is None else np.int32)

    def __len__(self) -> int:
        return self._part[1] - self._part[0]

    def texts(self, index: int) -> tuple[bytes, ...]:
        """The text of an example, and its pair where there is one."""
        return self._rows[self._part[0] + index].texts

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"texts": self.texts(index), "label": self.labels[index]}

    def fingerprint(self) -> dict[str, Any]:
        digest = digest_of(self.texts(i) for i in range(len(self)))
        return {"kind": "text_table", "digest": digest, "labels": digest_of([self.labels.tobytes()])}

    def describe(self, index: int) -> str:
        return self._rows[self._part[0] + index].place


@dataclasses.dataclass(frozen=True)
class VersePairs:
    """Verses in two translations: the same verse (1), or another one nearby (0).

    Example i is verse i in the first translation with, by a fixed draw, the same verse in
    the second, or of those up to ``distance`` verses off in the same chapter the one that
    shares most words with it, so that names and subject tell little.

    Attributes:
      first_path: a file (.txt or .gz) of 31,102 verses, one a line, in the order of the King
        James Version; empty for the Gospels of that version, which ship with vitax.
      second_path: the same in another translation; empty for the World English Bible.
      part: ``test`` is every tenth chapter, ``train`` the others, ``all`` both.
      distance: how far off the verse of a wrong pair stands at most.
      limit: keep only the first this many of a class-balanced, seeded subset.
      subset_seed: chooses that subset.
    """

    first_path: str = ""
    second_path: str = ""
    part: bible.Part = "all"
    distance: int = 8
    limit: int | None = None
    subset_seed: int = 0

    class_names = ("another", "same")

    @functools.cached_property
    def _all(self) -> tuple[list[tuple[str, str]], np.ndarray]:
        first, second = bible.read(self.first_path, "kjv", self.part), bible.read(self.second_path, "web", self.part)
        chapters = [(first[n], second[n]) for n in first if n in second]
        u = order.uniforms(0, "verse pairs", np.arange(sum(len(a) for a, _ in chapters)), 1)[:, 0]
        pairs: list[tuple[str, str]] = []
        labels: list[int] = []
        for one, other in chapters:
            words = [words_of(verse) for verse in other]
            for i, verse in enumerate(one):
                near = range(max(i - self.distance, 0), min(i + self.distance + 1, len(other)))
                wrong = [j for j in near if j != i]
                label = int(u[len(pairs)] < 0.5 or not wrong)
                own = words_of(verse)
                pairs.append((verse, other[i if label else max(wrong, key=lambda j: shared(own, words[j]))]))
                labels.append(label)
        kept = np.array(labels, np.int32)
        if self.limit is None:
            return pairs, kept
        if not 0 < self.limit <= len(pairs):
            raise UserError(f"data.source.limit: {self.limit}, but there are {len(pairs):,} pairs.")
        chosen = splits.balanced_subset(kept, self.limit, self.subset_seed)
        return [pairs[i] for i in chosen], kept[chosen]

    @property
    def labels(self) -> np.ndarray:
        """int32 [N]."""
        return self._all[1]

    def __len__(self) -> int:
        return len(self.labels)

    def texts(self, index: int) -> tuple[bytes, ...]:
        """The verse, and the one to compare it with."""
        first, second = self._all[0][index]
        return first.encode(), second.encode()

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"texts": self.texts(index), "label": self.labels[index]}

    def fingerprint(self) -> dict[str, Any]:
        digest = digest_of(self.texts(i) for i in range(len(self)))
        return {"kind": "verse_pairs", "digest": digest, "labels": digest_of([self.labels.tobytes()])}

    def describe(self, index: int) -> str:
        return f"verse pair {index}"


def words_of(text: str) -> set[str]:
    """The words of a text in lower case."""
    return set(re.findall(r"\w+", text.lower()))


def shared(one: set[str], other: set[str]) -> float:
    """Words in both over words in either."""
    return len(one & other) / max(len(one | other), 1)


def digest_of(parts: Iterable[bytes | Sequence[bytes]]) -> str:
    """16 hex digits over texts and where they end."""
    summed = hashlib.blake2b(digest_size=8)
    for part in parts:
        for text in (part,) if isinstance(part, bytes) else part:
            summed.update(len(text).to_bytes(8, "little") + text)
    return summed.hexdigest()


LABELLED_TEXT_SOURCES: dict[str, Any] = {
    "text_table": TextTable,
    "tfds_labelled_text": TfdsLabelledText,
    "verse_pairs": VersePairs,
}
