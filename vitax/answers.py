"""Answers in a passage: windows of its tokens, and the likeliest spans over all of them. NumPy alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vitax.core.errors import UserError

# As in BERT's code for SQuAD.
STRIDE, LONGEST = 128, 30
_MARKS = 3  # [CLS] question [SEP] passage [SEP]


class Window(NamedTuple):
    """Tokens of the passage that one input holds: ``start`` to before ``stop``."""

    start: int
    stop: int


class Span(NamedTuple):
    """An answer.

    Attributes:
      first: its first token in the passage.
      last: its last.
      score: sum of the two logits.
      probability: among all that are returned or would be.
    """

    first: int
    last: int
    score: float
    probability: float


def windows(tokens: int, question: int, context: int, stride: int = STRIDE) -> list[Window]:
    """Windows that cover a passage, each as long as the context lets it be.

    Args:
      tokens: of the passage.
      question: tokens of the question.
      context: tokens of an input with its marks.
      stride: from one window to the next; less where windows are shorter.

    Raises:
      UserError: an empty passage, or a question that leaves no room.
    """
    room = context - question - _MARKS
    if tokens == 0:
        raise UserError("--passage: holds no words.")
    if room < 1:
        raise UserError(f"--question: {question} tokens leave no room for a passage in {context} (model.context).")
    stride = min(stride, max(1, room // 2))
    starts = [0]
    while starts[-1] + room < tokens:
        starts.append(starts[-1] + stride)
    return [Window(start, min(start + room, tokens)) for start in starts]


def best(windows: Sequence[Window], scores: Sequence[np.ndarray], topk: int, longest: int = LONGEST) -> list[Span]:
    """The likeliest answers, each span once.

    Where windows overlap, a token may begin an answer in the one alone that has the most
    text on both sides of it.

    Args:
      windows: of ``windows``.
      scores: float [tokens of the window, 2] each, logits of start and end.
      topk: how many.
      longest: tokens of an answer.

    Reference: Devlin et al., arXiv:1810.04805, section 4.2; windows as in its code.
    """
    found: dict[tuple[int, int], float] = {}
    for index, (window, logits) in enumerate(zip(windows, scores)):
        for first in np.argsort(-logits[:, 0], kind="stable"):
            if _widest(windows, window.start + int(first)) != index:
                continue
            ends = logits[first : first + longest, 1]
            for length in np.argsort(-ends, kind="stable")[: max(topk, 20)]:
                span = window.start + int(first), window.start + int(first + length)
                found[span] = float(logits[first, 0] + ends[length])
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    likely = np.array([score for _, score in ranked], np.float64)
    likely = np.exp(likely - likely[0])
    likely /= likely.sum()
    return [Span(*span, score, float(p)) for (span, score), p in zip(ranked[:topk], likely)]


def _widest(windows: Sequence[Window], token: int) -> int:
    """The window with the most text around a token; of equal ones the longest, then the first."""
    around = [
        (min(token - w.start, w.stop - 1 - token) + 0.01 * (w.stop - w.start) if w.start <= token < w.stop else -1.0)
        for w in windows
    ]
    return int(np.argmax(around))
