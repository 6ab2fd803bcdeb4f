"""Questions on a context in SQuAD's format, as windows: ``QUESTION_SOURCES``."""

import dataclasses
import functools
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from vitax.core.errors import UserError
from vitax.data import document_files, splits
from vitax.data.labelled_text import digest_of
from vitax.data.labelled_text_pipeline import padded


class Question(NamedTuple):
    """A question.

    Attributes:
      name: its id in the file.
      text: the question.
      paragraph: number of its context.
      answers: every text that counts as right; none where there is no answer.
      start: letter of the context at which the first answer starts, or -1.
    """

    name: str
    text: str
    paragraph: int
    answers: tuple[str, ...]
    start: int


class Window(NamedTuple):
    """A part of a context beside its question.

    Attributes:
      question: number of the question.
      first: which token of the context it begins with.
      size: tokens of the context in it.
      offset: place of that first token in the row.
    """

    question: int
    first: int
    size: int
    offset: int


@dataclasses.dataclass(frozen=True)
class Squad:
    """A file of SQuAD 1.1 or 2.0, held in memory; an example is a window of a context.

    A row is ``[CLS] question [SEP] window [SEP]``; windows begin every ``stride`` tokens
    until the context ends. A window that does not hold the whole answer, and every window
    of a question without one, has both ends of the span at ``[CLS]``.

    Attributes:
      path: ``train-v1.1.json`` and the like, gzipped or not.
      tokenizer: given by the recipe's ``data.tokenizer``; a ``wordpiece``.
      length: T, given by ``data.length``.
      stride: tokens from the start of a window to that of the next.
      max_question: tokens of the question that are kept.
      split: a slice of the questions, such as ``[:1000]``.

    Reference: Rajpurkar et al., arXiv:1606.05250 and arXiv:1806.03822; windows as in the
    authors' code of BERT. Spans lie on WordPiece tokens and are given back by the letters
    that these stand for.
    """

    path: str
    tokenizer: Any
    length: int
    stride: int = 128
    max_question: int = 64
    split: str = ""

    class_names = None

    @functools.cached_property
    def _file(self) -> tuple[list[str], list[Question]]:
        file = pathlib.Path(self.path).expanduser()
        if not file.is_file():
            raise UserError(f"data.source.path: {self.path}: no such file. Expected a JSON file of SQuAD.")
        content = document_files.content(file)
        contexts: list[str] = []
        questions: list[Question] = []
        try:
            plain = json.loads(content)
            for paragraph in (p for article in plain["data"] for p in article["paragraphs"]):
                for q in paragraph["qas"]:
                    given = [] if q.get("is_impossible") else q["answers"]
                    texts = tuple(str(a["text"]) for a in given)
                    start = int(given[0]["answer_start"]) if given else -1
                    questions.append(Question(str(q["id"]), str(q["question"]), len(contexts), texts, start))
                contexts.append(str(paragraph["context"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"data.source.path: {self.path}: not in SQuAD's format ({type(error).__name__}: {error}). Expected "
                '{"data": [{"paragraphs": [{"context": ..., "qas": [{"id": ..., "question": ..., "answers": ...}]}]}]}.'
            ) from error
        start, stop = splits.bounds(splits.parse(self.split, "squad")[1], len(questions))
        return contexts, questions[start:stop]

    @property
    def questions(self) -> list[Question]:
        """Those of the split."""
        return self._file[1]

    def context(self, question: Question) -> str:
        """The text that answers it."""
        return self._file[0][question.paragraph]

    @functools.cached_property
    def _contexts(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Of each paragraph that is asked of, token ids and the letters where each begins and ends."""
        contexts, questions = self._file
        numbers = sorted({q.paragraph for q in questions})
        return {n: self.tokenizer.encode_with_offsets(contexts[n].encode()) for n in numbers}

    @functools.cached_property
    def _asked(self) -> list[np.ndarray]:
        """Token ids of each question."""
        return [self.tokenizer.encode(q.text.encode())[: self.max_question] for q in self.questions]

    @functools.cached_property
    def windows(self) -> list[Window]:
        """All windows, question by question.

        Raises:
          UserError: a length that leaves no room for a context.
        """
        found = []
        for number, (question, asked) in enumerate(zip(self.questions, self._asked)):
            room = self.length - 3 - len(asked)
            if room < 1:
                raise UserError(
                    f"data.length: {self.length} leaves no room for a context behind question {question.name} of "
                    f"{len(asked)} tokens. Set data.length higher or data.source.max_question lower."
                )
            whole = len(self._contexts[question.paragraph][0])
            found += [Window(number, first, size, len(asked) + 2) for first, size in parts(whole, room, self.stride)]
        return found

    @functools.cached_property
    def spans(self) -> np.ndarray:
        """int32 [questions, 2]: first and last token of the context in the first answer, or -1."""
        found = np.full((len(self.questions), 2), -1, np.int32)
        for row, question in zip(found, self.questions):
            if question.start < 0:
                continue
            stop = question.start + len(question.answers[0])
            letters = self._contexts[question.paragraph][1]
            first = int(np.searchsorted(letters[:, 1], question.start, side="right"))
            last = int(np.searchsorted(letters[:, 0], stop, side="left")) - 1
            if self.context(question)[question.start : stop] != question.answers[0] or last < first:
                raise UserError(
                    f"{self.path}: question {question.name}: its answer {question.answers[0]!r} does not stand at "
                    f"letter {question.start} of the context."
                )
            row[:] = first, last
        return found

    def letters(self, question: int) -> np.ndarray:
        """int32 [tokens, 2]: letters where each token of its context begins and ends."""
        return self._contexts[self.questions[question].paragraph][1]

    def __len__(self) -> int:
        return len(self.windows)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Windows: tokens, segment_ids, token_types int32 [B, T]; start and end int32 [B]."""
        chosen = [self.windows[int(i)] for i in indices]
        rows = []
        ends = np.zeros((len(chosen), 2), np.int32)
        for row, w in zip(ends, chosen):
            ids = self._contexts[self.questions[w.question].paragraph][0]
            rows.append((self._asked[w.question], ids[w.first : w.first + w.size]))
            start, end = self.spans[w.question]
            if start >= w.first and 0 <= end < w.first + w.size:
                row[:] = w.offset + start - w.first, w.offset + end - w.first
        return {**padded(self.tokenizer, rows, self.length), "start": ends[:, 0], "end": ends[:, 1]}

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: values[0] for name, values in self.gather(np.array([index])).items()}

    def fingerprint(self) -> dict[str, Any]:
        parts = ([q.name.encode(), q.text.encode(), self.context(q).encode(), *_bytes(q)] for q in self.questions)
        return {
            "kind": "squad",
            "tokenizer": self.tokenizer.fingerprint(),
            **{name: getattr(self, name) for name in ("length", "stride", "max_question")},
            "digest": digest_of(parts),
        }

    def describe(self, index: int) -> str:
        return f"window {index} (question {self.questions[self.windows[index].question].name})"


def parts(tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Windows over a context: (first token, tokens) of each, the next one ``stride`` on, until it ends."""
    found = [(0, min(room, tokens))]
    while sum(found[-1]) < tokens:
        first = found[-1][0] + min(found[-1][1], stride)
        found.append((first, min(room, tokens - first)))
    return found


def _bytes(question: Question) -> list[bytes]:
    return [*(a.encode() for a in question.answers), str(question.start).encode()]


QUESTION_SOURCES: dict[str, Any] = {"squad": Squad}
