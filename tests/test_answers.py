"""Windows of a passage, and the likeliest spans over them."""

import numpy as np
import pytest

from vitax import answers
from vitax.answers import Window
from vitax.core.errors import UserError


@pytest.mark.parametrize(("tokens", "question", "context"), [(5, 3, 20), (14, 3, 20), (15, 3, 20), (300, 7, 20)])
def test_windows_cover_the_passage_and_fit(tokens, question, context):
    found = answers.windows(tokens, question, context, stride=4)
    assert all(0 < w.stop - w.start <= context - question - 3 for w in found)
    assert {t for w in found for t in range(w.start, w.stop)} == set(range(tokens))
    assert found[-1].stop == tokens
    assert all(a.stop < tokens for a in found[:-1])
    assert len(found) == 1 or tokens > context - question - 3


def test_no_room_and_no_words_are_refused():
    with pytest.raises(UserError, match=r"--question: 17 tokens leave no room for a passage in 20"):
        answers.windows(5, 17, 20)
    with pytest.raises(UserError, match="--passage: holds no words"):
        answers.windows(0, 3, 20)


def test_the_likeliest_span_is_the_one_that_search_finds():
    logits = np.random.default_rng(0).standard_normal((12, 2))
    longest = 4
    want = max(
        ((i, j) for i in range(12) for j in range(i, min(12, i + longest))),
        key=lambda span: logits[span[0], 0] + logits[span[1], 1],
    )
    found = answers.best([Window(0, 12)], [logits], topk=5, longest=longest)
    assert (found[0].first, found[0].last) == want
    assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)
    assert all(0 <= s.last - s.first < longest for s in found)
    assert 0 < sum(s.probability for s in found) < 1


def test_where_windows_overlap_the_one_with_most_around_a_token_counts():
    windows = [Window(0, 6), Window(3, 9)]
    first, second = np.zeros((2, 6, 2))
    first[5, 0] = 9.0  # at the edge of its window: token 5 is deeper in the second
    second[0, 0] = 5.0  # token 3 is deeper in the first
    second[4] = 3.0
    found = answers.best(windows, [first, second], topk=3)
    assert (found[0].first, found[0].last, found[0].score) == (7, 7, 6.0)
    every = answers.best(windows, [first, second], topk=1000)
    spans = [(s.first, s.last) for s in every]
    assert len(set(spans)) == len(spans)
    assert sum(s.probability for s in every) == pytest.approx(1)
    starts = {s.first for s in every}
    assert starts == set(range(9))
