"""Pairs of texts, packed into rows of tokens.

A sentence and its translation take room in the same row, the sentence behind its end mark
in ``source``, the translation behind a mark in ``tokens`` and before one in ``targets``.
Equal segment ids on both sides belong together and attend to nothing else, so a row
computes what its pairs alone would.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import logging
import lzma
import pathlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from vitax.core.errors import UserError
from vitax.data import document_files, order, splits

log = logging.getLogger("vitax")

# Rows that are open at a time: enough that little room is lost, and quick.
OPEN_ROWS = 64
# Fixes which pairs share a row, whatever the seed of a run: rows are what a run shuffles.
PACKING_SEED = 0


class Rows(NamedTuple):
    """Packed pairs: int32 [R, S or T]; segment 0 is padding.

    Attributes:
      source: sentences, each with its end mark.
      source_segments: 1, 2, ... of the pair.
      tokens: the mark, then the translation.
      targets: the translation, then its end mark.
      segment_ids: of ``tokens`` and ``targets``.
      dropped: pairs that are longer than a row.
    """

    source: np.ndarray
    source_segments: np.ndarray
    tokens: np.ndarray
    targets: np.ndarray
    segment_ids: np.ndarray
    dropped: int


def pack(sources: list[np.ndarray], targets: list[np.ndarray], length: int, mark: int) -> Rows:
    """Packs pairs into rows, each into the first open row with room on both sides.

    Args:
      sources: token ids, without marks.
      targets: likewise.
      length: of a row on either side.
      mark: that ends a sentence, and begins a translation.
    """
    rows: list[list[int]] = []
    room: list[list[int]] = []
    first = dropped = 0
    for i in order.permutation(PACKING_SEED, 0, len(sources)).tolist():
        needs = len(sources[i]) + 1, len(targets[i]) + 1
        if max(needs) > length:
            dropped += 1
            continue
        for row in range(first, len(rows)):
            if needs[0] <= room[row][0] and needs[1] <= room[row][1]:
                break
        else:
            row = len(rows)
            rows.append([])
            room.append([length, length])
            first = max(first, len(rows) - OPEN_ROWS)
        rows[row].append(i)
        room[row][0] -= needs[0]
        room[row][1] -= needs[1]
    blank = functools.partial(np.zeros, (len(rows), length), np.int32)
    made = Rows(blank(), blank(), blank(), blank(), blank(), dropped)
    for row, members in enumerate(rows):
        s = t = 0
        for segment, i in enumerate(members, start=1):
            source, target = sources[i], targets[i]
            end_s, end_t = s + len(source) + 1, t + len(target) + 1
            made.source[row, s:end_s] = [*source, mark]
            made.source_segments[row, s:end_s] = segment
            made.tokens[row, t:end_t] = [mark, *target]
            made.targets[row, t:end_t] = [*target, mark]
            made.segment_ids[row, t:end_t] = segment
            s, t = end_s, end_t
    return made


class Pairs:
    """A source whose examples are rows of packed pairs: subclasses are dataclasses that give ``_pairs``.

    They have the fields ``split``, ``length`` and ``tokenizer``.
    """

    split: str
    length: int
    tokenizer: Any

    class_names = None

    def _pairs(self) -> tuple[list[str], list[str]]:
        raise NotImplementedError

    @functools.cached_property
    def pairs(self) -> tuple[list[str], list[str]]:
        """Sentences and their translations, of this split; pairs with an empty side are left out."""
        sources, targets = self._pairs()
        if len(sources) != len(targets):
            raise UserError(
                f"pairs: {len(sources)} lines of source and {len(targets)} of target. Line i of one must translate "
                "line i of the other."
            )
        start, stop = splits.bounds(splits.parse(self.split, "pairs")[1], len(sources))
        kept = [(s, t) for s, t in zip(sources[start:stop], targets[start:stop]) if s.strip() and t.strip()]
        if not kept:
            raise UserError(f'pairs: split "{self.split}" leaves none of the {len(sources)} pairs.')
        return [s for s, _ in kept], [t for _, t in kept]

    def documents(self) -> Iterator[bytes]:
        """Sentences, then translations, as text to train a tokenizer on."""
        return (text.encode() for side in self.pairs for text in side)

    @functools.cached_property
    def rows(self) -> Rows:
        """The pairs as tokens, packed."""
        sources, targets = ([self.tokenizer.encode(text.encode()) for text in side] for side in self.pairs)
        rows = pack(sources, targets, self.length, self.tokenizer.end_of_document)
        if not len(rows.tokens):
            raise UserError(f"pairs: every pair is longer than data.length {self.length}. Set it higher.")
        if rows.dropped:
            log.warning(
                "pairs: %d of %d pairs are longer than data.length %d and are left out.",
                *(rows.dropped, len(sources), self.length),
            )
        return rows

    @property
    def largest_id(self) -> int:
        """Of all tokens."""
        return int(max(self.rows.source.max(), self.rows.targets.max(), self.tokenizer.end_of_document))

    def __len__(self) -> int:
        return len(self.rows.tokens)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Rows: int32 [B, S or T], see ``Rows``."""
        return {name: getattr(self.rows, name)[indices] for name in Rows._fields if name != "dropped"}

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: values[0] for name, values in self.gather(np.array([index])).items()}

    def fingerprint(self) -> dict[str, Any]:
        digest = hashlib.blake2b(digest_size=8)
        for values in (self.rows.source, self.rows.targets):
            digest.update(np.ascontiguousarray(values).tobytes())
        return {
            "kind": "pairs",
            "tokenizer": self.tokenizer.fingerprint(),
            "length": self.length,
            "rows": len(self),
            "digest": digest.hexdigest(),
        }

    def describe(self, index: int) -> str:
        return f"row {index}"


@dataclasses.dataclass(frozen=True)
class Parallel(Pairs):
    """Two files of which line i translates line i.

    Attributes:
      source_path: a file of text, plain or .gz.
      target_path: likewise.
      tokenizer: given by the recipe's ``data.tokenizer``.
      length: tokens of a row, given by ``data.length``.
      split: a slice of the lines, such as ``[:90%]`` or ``[-500:]``.
    """

    source_path: str
    target_path: str
    tokenizer: Any
    length: int
    split: str = ""

    def _pairs(self) -> tuple[list[str], list[str]]:
        return _lines(self.source_path, "source_path"), _lines(self.target_path, "target_path")


@dataclasses.dataclass(frozen=True)
class EmbeddedPairs(Pairs):
    """The New Testament, World English Bible and Louis Segond's, verse by verse: ships with vitax.

    Attributes:
      tokenizer: given by the recipe's ``data.tokenizer``.
      length: tokens of a row, given by ``data.length``.
      name: ``new_testament_en_fr``.
      split: a slice of the verses, such as ``[:-300]``.
    """

    tokenizer: Any
    length: int
    name: Literal["new_testament_en_fr"] = "new_testament_en_fr"
    split: str = ""

    def _pairs(self) -> tuple[list[str], list[str]]:
        raw = importlib.resources.files("vitax.data.embedded").joinpath(f"{self.name}.tsv.xz").read_bytes()
        lines = [line.split("\t") for line in lzma.decompress(raw).decode().splitlines()]
        return [source for source, _ in lines], [target for _, target in lines]


def _lines(path: str, field: str) -> list[str]:
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"data.source.{field}: {path}: no such file. Expected text, plain or .gz, one sentence a line.")
    return document_files.text(file).removesuffix("\n").split("\n")
