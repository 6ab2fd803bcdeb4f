"""From the scores of windows to the text of an answer, and how answers are judged: SQuAD 1.1 and 2.0."""

import collections
import re
import string
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Scores(NamedTuple):
    """What a model says of one window.

    Attributes:
      start: float [T], how likely the answer starts at each token of the row.
      end: float [T].
      first: which token of the context the window begins with.
      size: tokens of the context in it.
      offset: place of that first token in the row, behind ``[CLS] question [SEP]``.
    """

    start: np.ndarray
    end: np.ndarray
    first: int
    size: int
    offset: int


class Span(NamedTuple):
    """Tokens ``first`` to ``last`` of a context, and the sum of their two scores."""

    first: int
    last: int
    score: float


class Answer(NamedTuple):
    """The best span of a context.

    Attributes:
      text: of the context as it stands there; empty where no span is allowed.
      score: sum of its two scores; minus infinity where none is allowed.
      null_score: that of none.
      start: first letter of the text in the context.
    """

    text: str
    score: float
    null_score: float
    start: int


def best_window(windows: Sequence[Scores], tokens: int) -> np.ndarray:
    """int [tokens]: the window that shows most around each token of the context.

    A token is counted in that window alone: the lesser of what stands left and right of
    it, and a hundredth of the window's length to settle ties, as in the authors' code.
    """
    room = np.full((len(windows), tokens), -np.inf)
    for row, w in zip(room, windows):
        at = np.arange(w.size)
        row[w.first : w.first + w.size] = np.minimum(at, w.size - 1 - at) + 0.01 * w.size
    return room.argmax(0)


def best_spans(windows: Sequence[Scores], tokens: int, *, n_best: int = 20, longest: int = 30) -> list[Span]:
    """Spans of a context by the sum of their scores, the largest first, over all windows.

    Args:
      windows: of one question.
      tokens: of the context.
      n_best: starts and ends that each window may propose.
      longest: tokens of an answer at most.

    Reference: Devlin et al., arXiv:1810.04805, section 4.2, and the authors' code.
    """
    found = []
    shown_best = best_window(windows, tokens)
    for number, w in enumerate(windows):
        starts, ends = (np.argsort(-x, kind="stable")[:n_best] - w.offset for x in (w.start, w.end))
        for start in starts:
            if not 0 <= start < w.size or shown_best[w.first + start] != number:
                continue
            for end in ends:
                score = float(w.start[w.offset + start] + w.end[w.offset + end])
                if start <= end < min(w.size, start + longest) and score > -np.inf:
                    found.append(Span(int(w.first + start), int(w.first + end), score))
    return sorted(found, key=lambda span: -span.score)


def null_score(windows: Sequence[Scores]) -> float:
    """The least sum of the two scores of ``[CLS]`` over the windows: how likely there is no answer."""
    return float(min(w.start[0] + w.end[0] for w in windows))


def best_answer(
    context: str, spans: np.ndarray, windows: Sequence[Scores], *, n_best: int = 20, longest: int = 30
) -> Answer:
    """The first of ``best_spans`` as text.

    Args:
      context: the text.
      spans: int [tokens, 2], letters where each token of the context begins and ends.
      windows: of one question.
      n_best: as of ``best_spans``.
      longest: likewise.
    """
    found = best_spans(windows, len(spans), n_best=n_best, longest=longest)
    if not found:
        return Answer("", -np.inf, null_score(windows), 0)
    start, stop = int(spans[found[0].first, 0]), int(spans[found[0].last, 1])
    return Answer(context[start:stop], found[0].score, null_score(windows), start)


def normalized(answer: str) -> str:
    """Lower case without punctuation, articles and repeated spaces."""
    letters = "".join(c for c in answer.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", letters).split())


def exact_match(predicted: str, answers: Sequence[str]) -> float:
    """1 where the normalised prediction equals that of any answer."""
    return float(any(normalized(predicted) == normalized(answer) for answer in answers))


def f1(predicted: str, answers: Sequence[str]) -> float:
    """The largest F1 of words over the answers; where one side has no words, 1 if the other has none either.

    Reference: Rajpurkar et al., arXiv:1606.05250, section 6.1; the rule for no words is
    that of SQuAD 2.0 (arXiv:1806.03822) and differs from 1.1's only there.
    """

    def one(answer: str) -> float:
        found, wanted = normalized(predicted).split(), normalized(answer).split()
        if not found or not wanted:
            return float(found == wanted)
        same = sum((collections.Counter(found) & collections.Counter(wanted)).values())
        return 2 * same / (len(found) + len(wanted))

    return max(one(answer) for answer in answers)


def accepted(answers: Sequence[str]) -> tuple[str, ...]:
    """The answers that say something; the empty one where none does, as for questions without an answer."""
    return tuple(answer for answer in answers if normalized(answer)) or ("",)
