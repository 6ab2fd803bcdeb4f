"""Tokenizers: ids as other programs give them, bytes back as they came, no mark made of text."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenizer_files import write_bpe, write_wordpiece
from vitax.core.errors import UserError
from vitax.data.tokenizers import BPE, TOKENIZERS, Bytes, WordPiece, files

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "tokenizers.json").read_text())


def published(name):
    root = os.environ.get("VITAX_DATA")
    path = Path(root or "absent") / "tokenizers" / name
    if not root or not list(path.parent.glob(f"{name}*")):
        pytest.skip(f"wants $VITAX_DATA/tokenizers/{name}")
    return str(path)


@pytest.fixture(scope="module")
def gpt2():
    return BPE(published("gpt2"))


@pytest.fixture(scope="module")
def bert():
    return WordPiece(published("bert-uncased-vocab.txt"))


def test_gpt2_is_as_published(gpt2):
    assert (gpt2.vocab_size, gpt2.end_of_document) == (50257, 50256)
    for row in GOLDEN:
        text = row["text"].encode()
        assert gpt2.encode(text).tolist() == row["gpt2"], row["text"]
        assert gpt2.decode(row["gpt2"]) == text
        assert gpt2.token_bytes[row["gpt2"]].sum() == len(text)


def test_bert_uncased_is_as_published(bert):
    assert bert.vocab_size == 30522
    marks = (bert.pad_id, bert.unk_id, bert.cls_id, bert.sep_id, bert.mask_id)
    assert marks == (0, 100, 101, 102, 103)
    for row in GOLDEN:
        assert bert.encode(row["text"].encode()).tolist() == row["bert"], row["text"]


def test_only_a_mask_that_is_asked_for_is_a_mark(bert):
    [row] = [row for row in GOLDEN if "[MASK]" in row["text"]]
    text = row["text"].encode()
    assert not set(bert.encode(text).tolist()) & {0, 101, 102, 103}
    masked = bert.encode_masked(text).tolist()
    assert masked.count(103) == row["bert_with_marks"].count(103) == 1
    assert bert.encode_masked(b"no mark").tolist() == bert.encode(b"no mark").tolist()


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_no_mark_is_made_of_text_whatever_the_file_says(tmp_path, kind):
    made = write_bpe(tmp_path) if kind == "bpe" else write_wordpiece(tmp_path / "vocab.txt")
    mark = "<|endoftext|>" if kind == "bpe" else "[MASK]"
    whole = json.loads(made._engine.to_str())
    # As other programs write it: marks that are looked for, templates, padding.
    token = {"id": made._engine.token_to_id(mark), "content": mark, "single_word": False, "lstrip": False}
    token |= {"rstrip": False, "normalized": False, "special": False}
    whole |= {"added_tokens": [token], "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0}}
    whole["truncation"]["direction"] = "Right"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(whole))
    other = TOKENIZERS[kind](str(tmp_path / "other"))
    text = f"to be{mark} or not {mark}".encode()
    ids = other.encode(text)
    assert token["id"] not in ids
    np.testing.assert_array_equal(ids, made.encode(text))
    assert other.end_of_document == made.end_of_document
    assert TOKENIZERS[kind](str(tmp_path / "other" / "tokenizer.json")).fingerprint() == other.fingerprint()


@pytest.fixture(scope="module")
def small_bpe(tmp_path_factory):
    return write_bpe(tmp_path_factory.mktemp("bpe"))


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8")))
def test_bpe_gives_every_byte_back(small_bpe, text):
    ids = small_bpe.encode(text.encode())
    assert small_bpe.decode(ids) == text.encode()
    assert small_bpe.token_bytes[ids].sum() == len(text.encode())


def test_merges_are_made_in_order(tmp_path):
    made = write_bpe(tmp_path)
    assert [made.decode([i]) for i in made.encode(b"the other the")] == [b"the", b" ", b"o", b"the", b"r", b" the"]
    assert made.decode([made.end_of_document]) == b""
    assert made.token_bytes[made.end_of_document] == 0


def test_ids_that_only_the_model_has_mean_nothing(tmp_path):
    for made in (write_bpe(tmp_path), write_wordpiece(tmp_path / "vocab.txt"), Bytes()):
        ids = made.encode(b"to be").tolist()
        assert made.decode([*ids, made.vocab_size, made.vocab_size + 40]) == made.decode(ids) == b"to be"
    assert write_wordpiece(tmp_path / "vocab.txt").token(99) == "#99"


def test_the_embedded_tokenizers_are_found_whatever_their_files():
    assert WordPiece("embedded:new_testament").vocab_size == 3_000
    assert BPE("embedded:new_testament_en_fr").vocab_size > 257
    with pytest.raises(UserError, match='Did you mean "embedded:new_testament"'):
        _ = WordPiece("embedded:new_testment").vocab_size


def test_long_text_in_pieces_is_the_same_tokens(tmp_path, monkeypatch):
    lines = b"to be,  or not\n\n to be\tbefore the  thing \xc2\xa0 \n" * 40
    for made in (write_bpe(tmp_path), write_wordpiece(tmp_path / "vocab.txt")):
        whole = made.encode(lines)
        for size in (1, 2, 7, 30):
            monkeypatch.setattr(files, "_PIECE", size)
            np.testing.assert_array_equal(made.encode(lines), whole)
        monkeypatch.undo()


def test_long_text_of_gpt2_and_bert_in_pieces(gpt2, bert, monkeypatch):
    play = gzip.decompress((Path("vitax/data/embedded/shakespeare.txt.gz")).read_bytes())[:60_000]
    text = play + "".join(row["text"] for row in GOLDEN).encode()
    for made in (gpt2, bert):
        monkeypatch.setattr(files, "_PIECE", len(text))
        whole = made.encode(text)
        monkeypatch.setattr(files, "_PIECE", 100)
        np.testing.assert_array_equal(made.encode(text), whole)


def test_words_come_back_from_pieces(tmp_path):
    made = write_wordpiece(tmp_path / "vocab.txt")
    ids = made.encode("To  b\u00e9fore, Hamlet".encode())
    assert made.decode([made.cls_id, *ids, made.sep_id, made.pad_id]) == b"to before , [UNK]"
    assert made.word_starts[ids].tolist() == [True, True, False, True, True]
    assert made.token_bytes[ids].tolist() == [2, 2, 4, 1, 0]
    ids, offsets = made.encode_with_offsets("To b\u00e9fore".encode())
    assert [("To b\u00e9fore"[a:b]) for a, b in offsets] == ["To", "b\u00e9", "fore"]
    assert made.end_of_document == made.sep_id


def test_the_fingerprint_is_of_contents(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    same = write_wordpiece(first).fingerprint()
    assert write_wordpiece(second).fingerprint() == same
    assert WordPiece(str(first), lowercase=False).fingerprint() != same
    second.write_text(second.read_text() + "more\n")
    assert WordPiece(str(second)).fingerprint() != same
    assert Bytes().fingerprint() == {"kind": "bytes"}


def test_what_is_wrong_with_a_tokenizer_is_said(tmp_path):
    with pytest.raises(UserError, match=r"data.tokenizer.path: .*absent: no such file or folder. Expected a folder"):
        BPE(str(tmp_path / "absent")).encode(b"x")
    with pytest.raises(UserError, match=r"holds none. Expected a folder with tokenizer.json, or vocab.txt"):
        WordPiece(str(tmp_path)).encode(b"x")
    write_bpe(tmp_path)
    with pytest.raises(UserError, match=r'data.tokenizer.end: "<eos>" is no token of'):
        _ = BPE(str(tmp_path), end="<eos>").end_of_document
    with pytest.raises(UserError, match=r"not UTF-8 \(byte 0xff at 2\)"):
        BPE(str(tmp_path)).encode(b"ab\xff")
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"lacks \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\]"):
        _ = WordPiece(str(tmp_path)).pad_id
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    with pytest.raises(UserError, match=r"a tokenizer of type 'Unigram', expected 'BPE'"):
        BPE(str(tmp_path)).encode(b"x")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer.json is not JSON"):
        BPE(str(tmp_path)).encode(b"x")


def test_the_package_is_imported_at_the_first_use():
    code = (
        "import sys, vitax, vitax.__main__, vitax.arguments, vitax.recipe, vitax.data.tokenizers as t\n"
        "vitax.arguments.parser(); t.BPE('absent'); assert 'tokenizers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
