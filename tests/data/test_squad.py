"""Questions as windows: answers are found, and given back letter by letter; judged as SQuAD does."""

import numpy as np
import pytest

from tests import pieces
from tests.questions import CONTEXT, squad
from vitax.core.errors import UserError
from vitax.data import answers
from vitax.data.answers import Scores
from vitax.data.span_pipeline import SpanPipeline
from vitax.data.squad import Squad
from vitax.data.tokenizers import WordPiece

T = 24


@pytest.fixture
def source(tmp_path):
    found = [(text, CONTEXT.index(text)) for text in ("Good one", "film  was good", "1984", "The", "Bad")]
    questions = [(f"q{i}", "who was it?", [one, ("another", 0)]) for i, one in enumerate(found)]
    questions.append(("q5", "who is not?", []))
    (tmp_path / "squad.json").write_text(squad(CONTEXT, *questions))
    return Squad(str(tmp_path / "squad.json"), WordPiece(pieces.write(tmp_path)), T, stride=7)


def test_an_answer_comes_back_letter_by_letter(source):
    """From letters to tokens to letters, in every window that holds the whole of it."""
    seen = set()
    for i, window in enumerate(source.windows):
        row, question = source[i], source.questions[window.question]
        assert row["tokens"][0] == 2
        assert row["segment_ids"].sum() == window.offset + window.size + 1
        start, end = row["start"], row["end"]
        if not start:
            assert end == 0
            continue
        assert window.offset <= start <= end < window.offset + window.size
        letters = source.letters(window.question)
        first, last = (p - window.offset + window.first for p in (start, end))
        assert CONTEXT[letters[first, 0] : letters[last, 1]] == question.answers[0]
        seen.add(question.name)
    assert seen == {"q0", "q1", "q2", "q3", "q4"}


def test_windows_cover_the_context_and_begin_a_stride_apart(source):
    tokens = len(source.letters(0))
    for number in range(6):
        windows = [w for w in source.windows if w.question == number]
        assert [w.first for w in windows] == [7 * k for k in range(len(windows))]
        assert windows[-1].first + windows[-1].size == tokens
        assert all(w.offset + w.size + 1 == T for w in windows[:-1])
        assert windows[-2].first + windows[-2].size < tokens
    ids = source.tokenizer.encode(CONTEXT.encode())
    w = source.windows[1]
    np.testing.assert_array_equal(source[1]["tokens"][w.offset : w.offset + w.size], ids[w.first : w.first + w.size])
    assert source[1]["token_types"].sum() == w.size + 1


def test_scores_at_the_answer_give_its_text(source):
    """A model that is certain of its windows' labels finds every answer; one certain of none, none."""
    for number, question in enumerate(source.questions):
        windows = []
        for i, w in enumerate(source.windows):
            if w.question == number:
                start, end = np.zeros(T), np.zeros(T)
                start[source[i]["start"]] = end[source[i]["end"]] = 5.0
                windows.append(Scores(start, end, w.first, w.size, w.offset))
        best = answers.best_answer(CONTEXT, source.letters(number), windows)
        if question.answers:
            assert best.text == question.answers[0]
            assert CONTEXT[best.start :].startswith(best.text)
            assert best.score == 10
        else:
            assert best.null_score - best.score == 10


def window(start, end, first=0, offset=2):
    pad = np.zeros(offset)
    return Scores(np.append(pad, start), np.append(pad, end), first, len(start), offset)


def test_the_best_answer_by_hand():
    context, spans = "a b c d e", np.array([[2 * i, 2 * i + 1] for i in range(5)])

    def text(*windows, **options):
        return answers.best_answer(context, spans, windows, **options).text

    # The end may not come before the start: 4 + 1 beats 3 + 1; 4 + 5 is no span.
    assert text(window([0, 0, 0, 4, 3], [0, 5, 0, 0, 1])) == "d e"
    # At most so many tokens.
    assert text(window([9, 0, 0, 2, 0], [0, 0, 0, 0, 9])) == "a b c d e"
    assert text(window([9, 0, 0, 2, 0], [0, 0, 0, 0, 9]), longest=2) == "d e"
    # Of each window only so many starts and ends.
    assert text(window([5, 4, 0, 0, 0], [0, 0, 0, 1, 2]), n_best=1) == "a b c d e"
    # The second window sees more around c, so the first may not begin there.
    one = window([-9, -9, 9], [0, 0, 9])
    other = window([0, 1, 0, 0], [0, 2, 0, 0], first=1)
    assert answers.best_window([one, other], 5).tolist() == [0, 0, 1, 1, 1]
    assert answers.best_answer(context, spans, [one, other])[:2] == ("c", 3.0)
    # The least of the windows says that there is no answer.
    low = Scores(np.array([3.0, 0, 1]), np.array([1.0, 0, 1]), 0, 1, 2)
    high = Scores(np.array([5.0, 0, 1]), np.array([1.0, 0, 1]), 1, 1, 2)
    assert answers.best_answer(context, spans, [low, high]).null_score == 4


@pytest.mark.parametrize(
    ("predicted", "gold", "exact", "f1"),
    [
        ("The Denver Broncos!", ["Denver Broncos"], 1, 1),
        ("an  apple", ["Apple."], 1, 1),
        ("theatre", ["the atre"], 0, 0),
        ("Broncos", ["Denver Broncos", "the Broncos"], 1, 1),
        ("in Paris France", ["Paris"], 0, 0.5),  # 1 of 3 and 1 of 1: 2 * 1 / (3 + 1)
        ("to to be", ["to be to be"], 0, 6 / 7),  # words count as often as they stand
        ("", ["Paris"], 0, 0),
        ("", [""], 1, 1),
        ("Paris", [""], 0, 0),
        ("the", ["a"], 1, 1),
        ("U.S.", ["us"], 1, 1),
    ],
)
def test_exact_match_and_f1_by_hand(predicted, gold, exact, f1):
    assert answers.exact_match(predicted, gold) == exact
    assert answers.f1(predicted, gold) == pytest.approx(f1)


def test_answers_that_say_nothing_are_no_answers():
    assert answers.accepted(("the", "Paris")) == ("Paris",)
    assert answers.accepted(()) == ("",)


def test_batches_are_a_function_of_seed_and_step(source):
    def pipeline(**options):
        return SpanPipeline(source, **{"vocab_size": 99, "batch_size": 4, "seed": 3, **options})

    parts = [pipeline(process_index=i, process_count=2).batch(1) for i in range(2)]
    for name, value in pipeline().batch(1).items():
        np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), value)
    evaluated = list(pipeline().eval_batches())
    index = np.concatenate([b["index"][b["mask"]] for b in evaluated])
    np.testing.assert_array_equal(index, np.arange(len(source)))


def test_what_is_wrong_with_questions_is_said(tmp_path, source):
    with pytest.raises(UserError, match="no such file. Expected a JSON file of SQuAD"):
        len(Squad(str(tmp_path / "absent"), source.tokenizer, T))
    (tmp_path / "bad.json").write_text('{"data": [{"paragraphs": [{}]}]}')
    with pytest.raises(UserError, match="not in SQuAD's format .KeyError: 'qas'"):
        len(Squad(str(tmp_path / "bad.json"), source.tokenizer, T))
    (tmp_path / "off.json").write_text(squad("a good film", ("q7", "who?", [("film", 3)])))
    with pytest.raises(UserError, match="question q7: its answer 'film' does not stand at letter 3"):
        _ = Squad(str(tmp_path / "off.json"), source.tokenizer, T).spans
    with pytest.raises(UserError, match="data.length: 7 leaves no room for a context behind question q0"):
        len(Squad(source.path, source.tokenizer, 7))
