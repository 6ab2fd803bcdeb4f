"""Pre-training batches of BERT: pairs that are what they say, masks that are what they should be."""

import numpy as np
import pytest

from tests.pieces import Pieces
from vitax.core.errors import UserError
from vitax.data import bible, masking, order, sentence_pairs
from vitax.data.documents import BibleChapters, TextDocuments
from vitax.data.masked_pipeline import MaskedPipeline

T, M = 32, 5
LETTERS = "bcdefghijklmnopqrstuvwxyz"


def text(documents=9):
    """Documents of two to seven sentences; a sentence's words tell document and place."""
    rows = []
    for d in range(documents):
        sentences = [f"{LETTERS[d]}{LETTERS[s]} " * (1 + (d + s) % 6) for s in range(2 + d % 6)]
        rows.append("\n".join(sentences))
    return "\n\n".join(rows)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "text.txt").write_text(text())
    return TextDocuments(str(tmp_path / "text.txt"), Pieces(), T)


def pipeline(source, **options):
    return MaskedPipeline(source, **{"vocab_size": 99, "max_predictions": M, "batch_size": 4, "seed": 3, **options})


def original(batch):
    """tokens before any was hidden."""
    tokens = batch["tokens"].copy()
    row, slot = np.nonzero(batch["masked_weights"])
    tokens[row, batch["masked_positions"][row, slot]] = batch["masked_targets"][row, slot]
    return tokens


def batches(source, count, **options):
    made = [pipeline(source, **options).batch(n) for n in range(count)]
    return {name: np.concatenate([b[name] for b in made]) for name in made[0]}


def segments(tokens, types, real):
    """A and B without the marks."""
    a, b = tokens[real & (types == 0)], tokens[real & (types == 1)]
    assert (a[0], a[-1], b[-1]) == (2, 3, 3)
    return a[1:-1], b[:-1]


def places(stream, segment):
    """Where a segment stands in the stream."""
    n = len(segment)
    return [i for i in range(len(stream) - n + 1) if (stream[i : i + n] == segment).all()]


def test_every_sentence_is_in_one_chunk_and_no_chunk_leaves_its_document(source):
    corpus = source.corpus
    assert corpus.chunks[0] == 0
    assert corpus.chunks[-1] == len(corpus.sentences) - 1
    assert (np.diff(corpus.chunks) > 0).all()
    assert set(corpus.documents) <= set(corpus.chunks)
    sizes = corpus.sentences[corpus.chunks[1:]] - corpus.sentences[corpus.chunks[:-1]]
    ends_document = np.isin(corpus.chunks[1:], corpus.documents)
    assert (sizes[~ends_document] >= T - 3).all()
    assert len(source) == len(corpus.document_of) > len(corpus.documents) - 1


def test_a_label_of_next_sentence_is_true(source):
    corpus = source.corpus
    batch = batches(source, 60)
    token_document = np.repeat(np.arange(9), np.diff(corpus.sentences[corpus.documents]))
    whole = original(batch)
    followed = 0
    for i in range(len(whole)):
        a, b = segments(whole[i], batch["token_types"][i], batch["segment_ids"][i] > 0)
        starts, seconds = places(corpus.stream, a), places(corpus.stream, b)
        documents_of = [{token_document[p] for p in found} for found in (starts, seconds)]
        if batch["next_sentence"][i]:
            assert documents_of[0].isdisjoint(documents_of[1])
        elif len(a) + len(b) < T - 3:  # nothing was cut
            assert any(s + len(a) in seconds for s in starts)
            followed += 1
        else:
            assert documents_of[0] & documents_of[1]
    assert followed > 20


def test_half_of_the_second_segments_are_random_and_a_tenth_is_short(tmp_path):
    # Sentences of one token, so that a pair has exactly the length it aims at.
    (tmp_path / "ones.txt").write_text("\n\n".join("b\n" * 29_000 for _ in range(2)))
    source = TextDocuments(str(tmp_path / "ones.txt"), Pieces(), T)
    assert len(source) == 2_000
    made = [pipeline(source, batch_size=len(source)).batch(n) for n in range(5)]
    lengths = np.concatenate([b["segment_ids"].sum(1) - 3 for b in made])
    random = np.concatenate([b["next_sentence"] for b in made])
    assert abs(random.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(random))
    share = 0.1 * 27 / 28  # the full length is one of the 28 from 2 to 29
    assert abs((lengths < T - 3).mean() - share) < 4 * np.sqrt(share / len(lengths))
    short = np.bincount(lengths[lengths < T - 3], minlength=29)
    assert not short[:2].any()
    assert abs(short[2:] - 1000 / 28).max() < 5 * np.sqrt(1000 / 28)


def test_masked_targets_are_the_original_tokens_and_marks_are_never_chosen(source):
    batch = batches(source, 40)
    whole, weights = original(batch), batch["masked_weights"] > 0
    plain = whole >= 5
    chosen = np.zeros_like(plain)
    row, slot = np.nonzero(weights)
    chosen[row, batch["masked_positions"][row, slot]] = True
    assert not (chosen & ~plain).any()
    # What was not chosen is as it was, and all that stands in the stream.
    np.testing.assert_array_equal(np.where(chosen, 0, batch["tokens"]), np.where(chosen, 0, whole))
    stream = source.corpus.stream
    for tokens, types, real in zip(whole, batch["token_types"], batch["segment_ids"] > 0):
        for segment in segments(tokens, types, real):
            assert places(stream, segment)
    # 15% of the tokens, marks counted, from one to M; positions rise.
    lengths = batch["segment_ids"].sum(1)
    expected = np.clip(np.round(0.15 * lengths), 1, M)
    np.testing.assert_array_equal(weights.sum(1), np.minimum(expected, plain.sum(1)))
    for positions, real in zip(batch["masked_positions"], weights):
        assert (np.diff(positions[real]) > 0).all()
        assert not positions[~real].any()


def test_eighty_ten_ten():
    tokens = np.full((2000, 100), 7, np.int32)
    plain = np.ones_like(tokens, bool)
    found = masking.mask(
        *(tokens, plain, plain, np.full(2000, 100), np.arange(2000)),
        seed=1,
        rate=0.15,
        most=15,
        mask_id=4,
        vocab_size=1000,
    )
    assert found.weights.all()
    seen = np.take_along_axis(found.tokens, found.positions, 1)
    n = seen.size
    for value, share in ((4, 0.8 + 0.1 / 1000), (7, 0.1 + 0.1 / 1000)):
        assert abs((seen == value).mean() - share) < 4 * np.sqrt(share * (1 - share) / n)
    others = seen[(seen != 4) & (seen != 7)]
    assert len(np.unique(others)) > 900
    assert (others < 1000).all()
    # Every place is as likely as any.
    counts = np.bincount(found.positions.ravel(), minlength=100)
    assert abs(counts - 300).max() < 5 * np.sqrt(300)


def test_whole_words_are_masked_whole(source):
    batch = batches(source, 20, whole_words=True)
    whole = original(batch)
    starts = Pieces.word_starts[whole]
    row, slot = np.nonzero(batch["masked_weights"])
    chosen = np.zeros_like(whole, bool)
    chosen[row, batch["masked_positions"][row, slot]] = True
    assert chosen.sum(1).min() >= 0
    assert chosen.any()
    for i in range(len(whole)):
        for t in np.flatnonzero(chosen[i]):
            # Its neighbours within the word are chosen too; a cut segment begins inside a word.
            if not starts[i, t] and whole[i, t - 1] >= 5:
                assert chosen[i, t - 1]
            if whole[i, t + 1] >= 5 and not starts[i, t + 1]:
                assert chosen[i, t + 1]


def test_batches_are_a_function_of_seed_and_step(source):
    whole = pipeline(source)
    ahead = whole.iterate(2)
    for n in (2, 3):
        made = next(ahead)
        for name, value in pipeline(source, threads=1).batch(n).items():
            np.testing.assert_array_equal(made[name], value)
    ahead.close()
    parts = [pipeline(source, process_index=i, process_count=2).batch(1) for i in range(2)]
    for name, value in whole.batch(1).items():
        np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), value)
    assert (pipeline(source, seed=4).batch(0)["tokens"] != whole.batch(0)["tokens"]).any()


def test_masks_are_new_in_every_epoch_and_each_chunk_comes_once(source):
    n = len(source)
    made = pipeline(source, batch_size=n)
    first, second = made.batch(0), made.batch(1)
    for batch in (first, second):
        np.testing.assert_array_equal(np.sort(batch["index"]), np.arange(n))
    a, b = (x["masked_positions"][np.argsort(x["index"])] for x in (first, second))
    assert (a != b).any(1).mean() > 0.8


def test_an_evaluation_holds_every_chunk_once_with_one_draw(source):
    n = len(source)
    assert n % 5
    runs = [list(pipeline(source, shuffle=False).eval_batches(size)) for size in (5, n)]
    index = np.concatenate([b["index"][b["mask"]] for b in runs[0]])
    np.testing.assert_array_equal(index, np.arange(n))
    for name in ("tokens", "masked_targets", "next_sentence"):
        np.testing.assert_array_equal(np.concatenate([b[name] for b in runs[0]])[:n], runs[1][0][name])
    last = runs[0][-1]
    assert not last["masked_weights"][~last["mask"]].any()
    assert not last["segment_ids"][~last["mask"]].any()


def test_one_segment_where_no_next_sentence_is_predicted(tmp_path):
    (tmp_path / "one.txt").write_text(text(1))
    source = TextDocuments(str(tmp_path / "one.txt"), Pieces(), T)
    batch = pipeline(source, next_sentence=False).batch(0)
    assert "next_sentence" not in batch
    assert not batch["token_types"].any()
    for tokens in original(batch):
        assert tokens[0] == 2
        assert (tokens == 3).sum() == 1
    with pytest.raises(UserError, match="one document, but half of the second segments come from another"):
        pipeline(source)


def test_the_bible_is_cut_where_its_chapters_begin():
    train, test = (BibleChapters(Pieces(), T, part=part) for part in ("train", "test"))
    assert (len(train.corpus.documents) - 1, len(test.corpus.documents) - 1) == (234, 26)
    for translation in ("web", "kjv"):
        chapters = bible.read("", translation)
        # The first chapters of Matthew, Mark, Luke, John.
        assert [len(chapters[i]) for i in (929, 957, 973, 997)] == [25, 45, 80, 51]
        assert chapters[957][0].lower().startswith("the beginning of the gospel of jesus christ")
        assert chapters[997][0].startswith("In the beginning was the Word")
        assert not any(mark in verse for c in chapters.values() for verse in c for mark in "<>[]{}`")
    assert bible.verses_of_chapters().sum() == 31_102
    assert train.fingerprint() != test.fingerprint()


def test_what_is_wrong_with_documents_is_said(tmp_path):
    (tmp_path / "a.txt").write_text("a verse\n" * 7)
    with pytest.raises(UserError, match="7 lines. Expected 31,102, one a verse"):
        len(BibleChapters(Pieces(), T, path=str(tmp_path / "a.txt")))
    with pytest.raises(UserError, match="sentence: '\\(' is not a regular expression"):
        len(TextDocuments(str(tmp_path / "a.txt"), Pieces(), T, sentence="("))
    with pytest.raises(UserError, match=r'split "\[5:\]" leaves no text of the 1 documents'):
        len(TextDocuments(str(tmp_path / "a.txt"), Pieces(), T, split="[5:]"))
    with pytest.raises(UserError, match=r"data.vocab_size: 9, but there are token ids up to \d+"):
        pipeline(TextDocuments(str(tmp_path / "a.txt"), Pieces(), T), vocab_size=9)


def test_draws_are_uniform_below_their_bound():
    u = order.uniforms(0, "x", np.arange(10_000), 1)[:, 0]
    assert abs(np.bincount(sentence_pairs.below(u, np.full(10_000, 3)), minlength=3) - 10_000 / 3).max() < 200
    assert not sentence_pairs.below(u, np.zeros(10_000)).any()
