"""Two segments an example, the second of which follows the first or comes from another document.

As BERT's authors make them, but drawn when a batch is made: a chunk of consecutive
sentences is split at a random sentence into A and B; in half of the examples B is instead
text of another document, from a random sentence on.
"""

from typing import NamedTuple

import numpy as np

from vitax.core.errors import UserError
from vitax.data import order
from vitax.data.documents import Corpus


class Pairs(NamedTuple):
    """Where segments lie in the stream, and whether B is random.

    Attributes:
      first: int64 [B, 2], start and stop of A.
      second: int64 [B, 2], start and stop of B; both 0 where there is none.
      random: int32 [B]: 0 = B follows A in its document, 1 = B is of another.
    """

    first: np.ndarray
    second: np.ndarray
    random: np.ndarray


def check(corpus: Corpus) -> None:
    """Refuses a corpus that has no other document.

    Raises:
      UserError: a single document.
    """
    if len(corpus.documents) < 3:
        raise UserError(
            "data.source: one document, but half of the second segments come from another. Set data.source.separator "
            "so that it cuts the text into documents, or data.next_sentence=False."
        )


def pairs(corpus: Corpus, indices: np.ndarray, positions: np.ndarray, seed: int, full: int, short_rate: float) -> Pairs:
    """The pair of each chunk.

    Args:
      corpus: of at least two documents.
      indices: int64 [B], chunks.
      positions: int64 [B], global positions that key the draws.
      seed: of the run.
      full: tokens that A and B may have together.
      short_rate: probability that an example aims at a uniform length from 2 to ``full``
        instead of ``full``, so that short inputs are known.

    Reference: Devlin et al., arXiv:1810.04805, appendix A.2. As in the authors' code a
    chunk of one sentence always has a random B, and what a pair is too long by is cut off
    the front or the back of the longer segment, a token at a time.
    """
    u = order.uniforms(seed, "pairs", positions, 6)
    size = _targets(u[:, 0], u[:, 1], full, short_rate)
    first, last = corpus.chunks[indices], corpus.chunks[indices + 1]
    last = np.minimum(last, _reach(corpus, first, size))
    count = last - first
    middle = first + np.where(count > 1, 1 + below(u[:, 2], count - 1), 1)
    random = (count == 1) | (u[:, 3] < 0.5)
    a = np.stack([corpus.sentences[first], corpus.sentences[middle]], 1)
    # Any other document is as likely, and any of its sentences.
    own = corpus.document_of[indices]
    other = below(u[:, 4], np.full(len(own), len(corpus.documents) - 2))
    other += other >= own
    begin, end = corpus.documents[other], corpus.documents[other + 1]
    begin = begin + below(u[:, 5], end - begin)
    end = np.minimum(end, _reach(corpus, begin, np.maximum(size - (a[:, 1] - a[:, 0]), 1)))
    start, stop = np.where(random, begin, middle), np.where(random, end, last)
    b = np.stack([corpus.sentences[start], corpus.sentences[stop]], 1)
    return Pairs(*_shortened(a, b, full, positions, seed), random.astype(np.int32))


def singles(
    corpus: Corpus, indices: np.ndarray, positions: np.ndarray, seed: int, full: int, short_rate: float
) -> Pairs:
    """One segment an example, where no next sentence is predicted; see ``pairs``."""
    u = order.uniforms(seed, "pairs", positions, 2)
    size = _targets(u[:, 0], u[:, 1], full, short_rate)
    first = corpus.chunks[indices]
    last = np.minimum(corpus.chunks[indices + 1], _reach(corpus, first, size))
    a = np.stack([corpus.sentences[first], corpus.sentences[last]], 1)
    none = np.zeros_like(a)
    return Pairs(*_shortened(a, none, full, positions, seed), np.zeros(len(a), np.int32))


def _targets(short: np.ndarray, length: np.ndarray, full: int, short_rate: float) -> np.ndarray:
    return np.where(short < short_rate, 2 + below(length, np.full(len(length), full - 1)), full)


def below(uniform: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """A whole number from 0 to below ``bound``, evenly."""
    return np.minimum((uniform * bound).astype(np.int64), np.maximum(bound - 1, 0))


def _reach(corpus: Corpus, sentence: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The sentence before which at least so many tokens stand, counted from ``sentence``; at least one on."""
    return np.searchsorted(corpus.sentences, corpus.sentences[sentence] + tokens)


def _shortened(
    a: np.ndarray, b: np.ndarray, full: int, positions: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts tokens off the longer segment until both have ``full`` together; of equals, off B."""
    in_a, in_b = a[:, 1] - a[:, 0], b[:, 1] - b[:, 0]
    # What remains when the longer one has given way down to the other, and then both in turn.
    left_a = np.minimum(in_a, np.maximum(full - in_b, (full + 1) // 2))
    left_b = np.minimum(in_b, np.maximum(full - in_a, full // 2))
    cut = []
    for name, segment, left in (("A", a, left_a), ("B", b, left_b)):
        gone = segment[:, 1] - segment[:, 0] - left
        heads = order.uniforms(seed, f"cut {name}", positions, max(int(gone.max(initial=0)), 1)) < 0.5
        front = (heads & (np.arange(heads.shape[1]) < gone[:, None])).sum(1)
        start = segment[:, 0] + front
        cut.append(np.stack([start, start + left], 1))
    return cut[0], cut[1]
