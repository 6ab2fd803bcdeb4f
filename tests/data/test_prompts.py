"""Prompts and completions: packed without loss, each pair alone, the completion's tokens counted and no other."""

import json

import numpy as np
import pytest

from vitax.core.errors import UserError
from vitax.data.prompts import PromptCompletion
from vitax.data.text_pipeline import TextPipeline
from vitax.data.tokenizers import Bytes

PAIRS = [("ab", "cde"), ("", "fg"), ("hij", "k"), ("lm", ""), ("nopqr", "stuv"), ("w", "x")]
T = 12


@pytest.fixture
def file(tmp_path):
    lines = [json.dumps({"prompt": prompt, "completion": completion, "id": 1}) for prompt, completion in PAIRS]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "pairs.jsonl"


def test_every_pair_is_in_one_row_whole_and_its_completion_counts(file):
    source = PromptCompletion(str(file), Bytes(), T)
    rows = source.gather(np.arange(len(source)))
    assert source.num_pairs == len(PAIRS)
    found = []
    for tokens, targets, segments, counts in zip(*(rows[n] for n in ("tokens", "targets", "segment_ids", "loss_mask"))):
        assert sorted(set(segments[segments > 0])) == list(range(1, segments.max() + 1))
        assert not np.stack([tokens, targets, counts])[:, segments == 0].any()
        found += [(tokens[at].tolist(), targets[at].tolist(), counts[at]) for at in _segments(segments)]
    for (prompt, completion), (tokens, targets, counts) in zip(PAIRS, found, strict=True):
        assert tokens == [256, *f"{prompt}{completion}".encode()]
        assert targets == [*f"{prompt}{completion}".encode(), 256]
        assert np.array(targets)[counts].tolist() == [*completion.encode(), 256]
    assert len(source) < len(PAIRS)


def _segments(segments):
    return [segments == s for s in range(1, segments.max() + 1)]


def test_fields_splits_and_long_pairs(file, tmp_path, caplog):
    other = tmp_path / "other.jsonl"
    other.write_text(file.read_text().replace('"prompt"', '"question"').replace('"completion"', '"answer"'))
    named = PromptCompletion(str(other), Bytes(), T, "question", "answer")
    assert named.fingerprint() == PromptCompletion(str(file), Bytes(), T).fingerprint()
    assert PromptCompletion(str(file), Bytes(), T, split="[:2]").num_pairs == 2
    with pytest.raises(UserError, match=r"pairs.jsonl, line 5: 10 tokens with its mark, but data.length is 8"):
        len(PromptCompletion(str(file), Bytes(), 8))
    assert PromptCompletion(str(file), Bytes(), 8, skip_long=True).num_pairs == len(PAIRS) - 1
    assert "1 of 6 pairs are longer than data.length 8 and are left out." in caplog.text
    with pytest.raises(UserError, match=r'line 1: has no field "promt". Did you mean "prompt"'):
        len(PromptCompletion(str(file), Bytes(), T, "promt"))
    with pytest.raises(UserError, match=r'split "\[:0\]": no pair is in it'):
        len(PromptCompletion(str(file), Bytes(), T, split="[:0]"))
    with pytest.raises(UserError, match=r"none of 6 pairs fits data.length 1"):
        len(PromptCompletion(str(file), Bytes(), 1, skip_long=True))


def test_batches_hold_the_mask_and_an_evaluation_every_pair_once(file):
    source = PromptCompletion(str(file), Bytes(), T)
    pipeline = TextPipeline(source, vocab_size=257, batch_size=2, seed=1)
    assert pipeline.batch(0)["loss_mask"].dtype == bool
    batches = list(pipeline.eval_batches())
    assert {b["loss_mask"].dtype for b in batches} == {np.dtype(bool)}
    counted = sum(int(b["loss_mask"].sum()) for b in batches)
    assert counted == sum(len(completion) + 1 for _, completion in PAIRS)
