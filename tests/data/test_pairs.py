"""Pairs: packed by tokens, every one once, nothing across their borders."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitax.core.errors import UserError
from vitax.data.pairs import EmbeddedPairs, Parallel, pack
from vitax.data.text_pipeline import TextPipeline
from vitax.data.tokenizers import TOKENIZERS
from vitax.specs.pairs import PairSpec

BYTES = TOKENIZERS["bytes"]()
MARK = BYTES.end_of_document
lengths = st.lists(st.tuples(st.integers(1, 14), st.integers(1, 14)), min_size=1, max_size=40)


@settings(max_examples=50, deadline=None)
@given(lengths)
def test_every_pair_that_fits_stands_once_in_the_rows(sizes):
    sides = [[np.full(pair[side], i) for i, pair in enumerate(sizes)] for side in (0, 1)]
    rows = pack(*sides, length=12, mark=99)
    found = []
    for row in range(len(rows.tokens)):
        for segment in range(1, rows.segment_ids[row].max(initial=0) + 1):
            source = rows.source[row][rows.source_segments[row] == segment]
            tokens, targets = (x[row][rows.segment_ids[row] == segment] for x in (rows.tokens, rows.targets))
            assert source[-1] == tokens[0] == targets[-1] == 99
            np.testing.assert_array_equal(tokens[1:], targets[:-1])
            i = int(source[0])
            np.testing.assert_array_equal(source[:-1], sides[0][i])
            np.testing.assert_array_equal(targets[:-1], sides[1][i])
            found.append(i)
        # Runs: equal ids lie together, padding behind them.
        for ids in (rows.segment_ids[row], rows.source_segments[row]):
            real = ids[ids > 0]
            assert (np.diff(real) >= 0).all()
            assert not ids[len(real) :].any()
    fitting = [i for i, pair in enumerate(sizes) if max(pair) < 12]
    assert sorted(found) == fitting
    assert rows.dropped == len(sizes) - len(fitting)


def files(tmp_path, english, german):
    (tmp_path / "a.en").write_text("".join(f"{line}\n" for line in english))
    with gzip.open(tmp_path / "a.de.gz", "wt") as file:
        file.write("".join(f"{line}\n" for line in german))
    return {"source_path": str(tmp_path / "a.en"), "target_path": str(tmp_path / "a.de.gz"), "tokenizer": BYTES}


def test_lines_are_paired_and_empty_ones_left_out(tmp_path):
    fields = files(tmp_path, ["a dog", "", "two"], ["ein Hund", "nichts", "zwei"])
    source = Parallel(**fields, length=16)
    assert source.pairs == (["a dog", "two"], ["ein Hund", "zwei"])
    assert Parallel(**fields, length=16, split="[2:]").pairs == (["two"], ["zwei"])
    # Contents decide, not paths.
    other = tmp_path / "elsewhere"
    other.mkdir()
    moved = Parallel(**files(other, ["a dog", "", "two"], ["ein Hund", "nichts", "zwei"]), length=16)
    assert moved.fingerprint() == source.fingerprint()
    changed = Parallel(**files(other, ["a dog", "", "two"], ["ein Hund", "nichts", "drei"]), length=16)
    assert changed.fingerprint() != source.fingerprint()


def test_how_many_pairs_are_left_out_is_said_once(tmp_path, caplog):
    source = Parallel(**files(tmp_path, ["a", "too long", "b"], ["c", "d", "e"]), length=4)
    assert len(source) == len(source.gather(np.arange(len(source)))["tokens"])
    assert [r.message for r in caplog.records] == [
        "pairs: 1 of 3 pairs are longer than data.length 4 and are left out."
    ]


def test_what_is_wrong_is_said(tmp_path):
    fields = files(tmp_path, ["a", "b"], ["c"])
    with pytest.raises(UserError, match="2 lines of source and 1 of target"):
        len(Parallel(**fields, length=8))
    with pytest.raises(UserError, match=r"every pair is longer than data.length 2"):
        len(Parallel(**files(tmp_path, ["abc"], ["d"]), length=2))
    with pytest.raises(UserError, match=r"data.source.target_path: nowhere: no such file"):
        len(Parallel(fields["source_path"], "nowhere", BYTES, 8))
    spec = PairSpec({"kind": "embedded_pairs", "split": "[:20]"}, num_examples=5, length=512)
    with pytest.raises(UserError, match=r"data.num_examples: the recipe states 5, the source holds \d+ rows of 512"):
        spec.build_source()


def test_batches_are_a_pure_function_of_their_number():
    source = EmbeddedPairs(BYTES, 400, split="[:60]")
    options = {"vocab_size": 257, "batch_size": 4, "seed": 3}
    whole = TextPipeline(source, **options)
    batches = whole.iterate()
    want = [next(batches) for _ in range(6)][5]
    again = TextPipeline(source, **options, threads=1).batch(5)
    for name, values in want.items():
        np.testing.assert_array_equal(again[name], values)
    halves = [TextPipeline(source, **options, process_index=i, process_count=2).batch(5) for i in (0, 1)]
    np.testing.assert_array_equal(np.concatenate([h["source"] for h in halves]), want["source"])
    evaluated = list(whole.eval_batches())
    assert sum(int(b["mask"].sum()) for b in evaluated) == len(source)
    assert sum(int((b["segment_ids"] > 0).sum()) for b in evaluated) == int((source.rows.segment_ids > 0).sum())


def test_the_embedded_verses_are_there():
    english, french = EmbeddedPairs(BYTES, 400).pairs
    assert len(english) == len(french) == 7_957
    assert english[0].startswith("The book of the generation of Jesus Christ")
    assert french[0].startswith("Généalogie de Jésus Christ")
    assert not any(mark in text for text in (*english, *french) for mark in "<>[]{}")
