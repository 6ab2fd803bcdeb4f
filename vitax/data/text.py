"""Text as windows of tokens.

The documents of a source are joined to one stream, each behind the tokenizer's mark,
and the stream is cut into windows of T inputs; a window's targets are the tokens after
them, so every token but the first mark is predicted once. The last window is padded.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.resources
import itertools
import os
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from vitax.core import environment
from vitax.core.errors import UserError
from vitax.data import document_files, splits, token_cache

# Shorter text is tokenised in less than a second.
KEPT_BYTES = 1 << 20


class Windows:
    """A source whose examples are windows of a stream: subclasses are dataclasses that give ``_documents``.

    They have the fields ``split``, ``length`` and ``tokenizer``.
    """

    split: str
    length: int
    tokenizer: Any

    class_names = None

    def _documents(self) -> Iterator[tuple[str, bytes]]:
        """Each with its place, for messages."""
        raise NotImplementedError

    def documents(self) -> Iterator[bytes]:
        """Those of the split, in order."""
        return (text for _, text in self._in_split())

    def _in_split(self) -> Iterator[tuple[str, bytes]]:
        _, part = splits.parse(self.split, "text")
        start, stop = (0, None) if part is None else splits.bounds(part, sum(1 for _ in self._documents()))
        return itertools.islice(self._documents(), start, stop)

    @functools.cached_property
    def stream(self) -> np.ndarray:
        """uint16 or int32 [tokens]: the documents, each behind a mark, and a mark at the end.

        That of long text is kept on disk (``core.environment.token_cache``).
        """
        dtype = self.tokenizer.encode(b"").dtype
        if not hasattr(self.tokenizer, "files"):  # bytes are quicker than any cache
            return np.concatenate(list(self._parts(dtype)))
        key, size = token_cache.key_of(self.documents(), self.tokenizer, importlib.metadata.version("tokenizers"))
        if size < KEPT_BYTES:
            return np.concatenate(list(self._parts(dtype)))
        return token_cache.kept(environment.token_cache(os.environ), key, dtype, lambda: self._parts(dtype))

    def _parts(self, dtype: np.dtype) -> Iterator[np.ndarray]:
        mark = np.array([self.tokenizer.end_of_document], dtype)
        empty = True
        for place, text in self._in_split():
            empty = False
            yield mark
            try:
                ids = self.tokenizer.encode(text)
            except UserError as error:
                raise UserError(f"{place}: {error}") from error
            yield ids
        if empty:
            total = sum(1 for _ in self._documents())
            raise UserError(f'text: split "{self.split}" leaves none of the {total} documents.')
        yield mark

    @property
    def largest_id(self) -> int:
        """Of all tokens."""
        return int(self.stream.max())

    def __len__(self) -> int:
        return -(-(len(self.stream) - 1) // self.length)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Windows: tokens, targets and segment_ids, int32 [B, T]; padding has segment 0."""
        at = np.asarray(indices, np.int64)[:, None] * self.length + np.arange(self.length + 1)
        real = at[:, 1:] < len(self.stream)
        window = self.stream[np.minimum(at, len(self.stream) - 1)].astype(np.int32)
        segment_ids = 1 + np.cumsum(window[:, :-1] == self.tokenizer.end_of_document, 1, np.int32)
        return {
            "tokens": np.where(real, window[:, :-1], 0),
            "targets": np.where(real, window[:, 1:], 0),
            "segment_ids": np.where(real, segment_ids, 0),
        }

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: values[0] for name, values in self.gather(np.array([index])).items()}

    def fingerprint(self) -> dict[str, Any]:
        return {
            "kind": "text",
            "tokenizer": self.tokenizer.fingerprint(),
            "length": self.length,
            "tokens": len(self.stream),
            "digest": token_cache.digest(self.stream),
        }

    def describe(self, index: int) -> str:
        return f"window {index}"


@dataclasses.dataclass(frozen=True)
class Text(Windows):
    """Files of text.

    Attributes:
      path: a file (.txt or .gz), or a folder whose .txt and .gz files are read in the
        order of their names.
      tokenizer: given by the recipe's ``data.tokenizer``.
      length: T, given by ``data.length``.
      separator: regular expression of what stands between two documents of a file; None
        makes each file one document.
      split: a slice of the documents, such as ``[:90%]`` or ``[-5:]``.
    """

    path: str
    tokenizer: Any
    length: int
    separator: str | None = None
    split: str = ""

    def _documents(self) -> Iterator[tuple[str, bytes]]:
        files = document_files.find(self.path, document_files.is_text, ".txt or .gz")
        yield from document_files.of_text(files, self.separator)


@dataclasses.dataclass(frozen=True)
class JSONLines(Windows):
    """Documents in JSON lines: a field of an object a line.

    Attributes:
      path: a file (.jsonl or .jsonl.gz), or a folder whose such files are read in the order
        of their names.
      tokenizer: given by the recipe's ``data.tokenizer``.
      length: T, given by ``data.length``.
      field: that holds the text.
      split: a slice of the documents, such as ``[:90%]`` or ``[-5:]``.
    """

    path: str
    tokenizer: Any
    length: int
    field: str = "text"
    split: str = ""

    def _documents(self) -> Iterator[tuple[str, bytes]]:
        files = document_files.find(self.path, document_files.is_json_lines, ".jsonl or .jsonl.gz")
        for place, row in document_files.rows(files):
            yield place, document_files.text_of(row, place, self.field)


@dataclasses.dataclass(frozen=True)
class EmbeddedText(Windows):
    """A small text that ships with vitax: no file, no network.

    Attributes:
      tokenizer: given by the recipe's ``data.tokenizer``.
      length: T, given by ``data.length``.
      name: ``shakespeare``: six plays.
      split: a slice of the plays, such as ``[:-1]``.
    """

    tokenizer: Any
    length: int
    name: Literal["shakespeare"] = "shakespeare"
    split: str = ""

    def _documents(self) -> Iterator[tuple[str, bytes]]:
        path = importlib.resources.files("vitax.data.embedded") / f"{self.name}.txt.gz"
        for text in document_files.split(document_files.content(path), SHAKESPEARE):
            yield self.name, text


# A play begins with its title, above the name of its author.
SHAKESPEARE = r"\n\n(?=[^\n]+\n\nby William Shakespeare)"
