"""Documents of sentences, for pre-training on pairs of them: ``DOCUMENT_SOURCES``.

A source cuts its documents into chunks of whole sentences that fill the length of an
example. Chunk i is example i; how it is split in two, shortened and masked is drawn anew
in every epoch (``vitax.data.sentence_pairs``, ``vitax.data.masking``).
"""

import dataclasses
import functools
import hashlib
import itertools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from vitax.core.errors import UserError
from vitax.data import bible, document_files, splits


class Corpus(NamedTuple):
    """Tokens of all documents, and where sentences, documents and chunks begin.

    Attributes:
      stream: uint16 or int32 [tokens], without any special token.
      sentences: int64 [S + 1], offsets into ``stream``.
      documents: int64 [D + 1], numbers of sentences.
      chunks: int64 [N + 1], numbers of sentences; no chunk crosses a document's end.
      document_of: int64 [N], the document of each chunk.
    """

    stream: np.ndarray
    sentences: np.ndarray
    documents: np.ndarray
    chunks: np.ndarray
    document_of: np.ndarray


class Documents:
    """A source of chunks: subclasses are dataclasses that give ``_documents``.

    They have the fields ``split``, ``length`` and ``tokenizer``.
    """

    split: str
    length: int
    tokenizer: Any

    class_names = None

    def _documents(self) -> Iterator[tuple[str, list[bytes]]]:
        """The place of each document, for messages, and its sentences."""
        raise NotImplementedError

    def documents(self) -> Iterator[bytes]:
        """Those of the split, a sentence a line, as text to train a tokenizer on."""
        return (b"\n".join(sentences) for _, sentences in self._in_split())

    def _in_split(self) -> Iterator[tuple[str, list[bytes]]]:
        _, part = splits.parse(self.split, "documents")
        start, stop = (0, None) if part is None else splits.bounds(part, sum(1 for _ in self._documents()))
        return itertools.islice(self._documents(), start, stop)

    @functools.cached_property
    def corpus(self) -> Corpus:
        """All that examples are made of.

        Raises:
          UserError: the split leaves no document with a sentence.
        """
        parts, sizes, pieces = [], [], []
        for place, document in self._in_split():
            try:
                ids = [s for s in map(self.tokenizer.encode, document) if len(s)]
            except UserError as error:
                raise UserError(f"{place}: {error}") from error
            # Joined at once: a sentence of its own costs Python more than its tokens.
            if ids:
                parts.append(np.concatenate(ids))
                sizes.append(np.array([len(s) for s in ids], np.int32))
                pieces.append(_chunks(sizes[-1], self.length - 3))
        if not parts:
            total = sum(1 for _ in self._documents())
            raise UserError(f'documents: split "{self.split}" leaves no text of the {total} documents.')
        return Corpus(
            stream=np.concatenate(parts),
            sentences=_offsets(np.concatenate(sizes)),
            documents=_offsets(np.array([len(s) for s in sizes])),
            chunks=_offsets(np.concatenate(pieces)),
            document_of=np.repeat(np.arange(len(parts)), [len(p) for p in pieces]),
        )

    def __len__(self) -> int:
        return len(self.corpus.document_of)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """The tokens of chunk ``index``, [tokens]."""
        corpus = self.corpus
        start, stop = corpus.sentences[corpus.chunks[index : index + 2]]
        return {"tokens": corpus.stream[start:stop]}

    def fingerprint(self) -> dict[str, Any]:
        digest = hashlib.blake2b(digest_size=8)
        for part in self.corpus:
            digest.update(np.ascontiguousarray(part).tobytes())
        return {
            "kind": "documents",
            "tokenizer": self.tokenizer.fingerprint(),
            "length": self.length,
            "tokens": len(self.corpus.stream),
            "digest": digest.hexdigest(),
        }

    def describe(self, index: int) -> str:
        return f"chunk {index}"


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _chunks(sizes: np.ndarray, full: int) -> np.ndarray:
    """Sentences of each chunk of a document: as many as it takes to reach ``full`` tokens."""
    ends, counts, begun = np.cumsum(sizes), [], 0
    while begun < len(sizes):
        before = ends[begun - 1] if begun else 0
        stop = min(int(np.searchsorted(ends, before + full)) + 1, len(sizes))
        counts.append(stop - begun)
        begun = stop
    return np.array(counts)


@dataclasses.dataclass(frozen=True)
class TextDocuments(Documents):
    """Files of text, whose token ids are held in memory.

    Attributes:
      path: a file (.txt or .gz), or a folder whose .txt and .gz files are read in the
        order of their names.
      tokenizer: given by the recipe's ``data.tokenizer``.
      length: T, given by ``data.length``.
      separator: regular expression of what stands between two documents of a file; None
        makes each file one document.
      sentence: regular expression of what stands between two sentences: by default a line
        break, as BERT's own files have it; ``(?<=[.!?])\\s+`` for prose.
      split: a slice of the documents, such as ``[:90%]`` or ``[-5:]``.
    """

    path: str
    tokenizer: Any
    length: int
    separator: str | None = r"\n\s*\n"
    sentence: str = r"\n"
    split: str = ""

    def _documents(self) -> Iterator[tuple[str, list[bytes]]]:
        files = document_files.find(self.path, document_files.is_text, ".txt or .gz")
        for place, document in document_files.of_text(files, self.separator):
            try:
                sentences = re.split(self.sentence.encode(), document)
            except re.error as error:
                raise UserError(
                    f"data.source.sentence: {self.sentence!r} is not a regular expression ({error})."
                ) from error
            yield place, [s for s in sentences if s.strip()]


@dataclasses.dataclass(frozen=True)
class BibleChapters(Documents):
    """Chapters of the Bible: a chapter is a document, a verse a sentence.

    Attributes:
      tokenizer: given by the recipe's ``data.tokenizer``.
      length: T, given by ``data.length``.
      path: a file (.txt or .gz) of 31,102 verses, one a line, in the order of the King
        James Version; empty for what ships with vitax.
      translation: which of that: ``web``, the New Testament of the World English Bible, or
        ``kjv``, the Gospels of the King James Version.
      part: ``test`` is every tenth chapter, ``train`` the others, ``all`` both.
      split: a slice of these chapters.
    """

    tokenizer: Any
    length: int
    path: str = ""
    translation: bible.Translation = "web"
    part: bible.Part = "all"
    split: str = ""

    def _documents(self) -> Iterator[tuple[str, list[bytes]]]:
        for number, verses in bible.read(self.path, self.translation, self.part).items():
            yield f"chapter {number}", [verse.encode() for verse in verses]


DOCUMENT_SOURCES: dict[str, Any] = {"documents": TextDocuments, "bible_chapters": BibleChapters}
