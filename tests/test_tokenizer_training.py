"""A tokenizer of one's own: the same file from the same text, of the size asked for, and what is wrong said."""

import gzip
import json
import os
import re
import subprocess
import sys

import pytest

from vitax import recipe, run, tokenizer_training
from vitax.__main__ import main
from vitax.data.tokenizers import BPE, WordPiece
from vitax.specs import kinds

TEXT = "the cat sat on the mat, the bat sat on the hat; caf\u00e9 na\u00efve\n" * 20


@pytest.fixture
def text(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_text(TEXT)
    (folder / "b.txt.gz").write_bytes(gzip.compress(b"<|endoftext|> [MASK] the hat\n"))
    (folder / "c.jsonl").write_text('{"text": "that cat"}\n\n{"text": "this"}\n')
    return folder


def words(text, out, kind, size, *more):
    return ["tokenizer", "train", str(text), "--kind", kind, "--vocab-size", str(size), "--out", str(out), *more]


def test_bpe_has_the_size_asked_for_and_gives_bytes_back(text, tmp_path, capsys):
    out = tmp_path / "made" / "bpe.json"
    assert main([*words(text, out, "bpe", 270), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    made = BPE(str(out))
    assert row["vocab_size"] == made.vocab_size == 270
    assert row["digest"] == made.fingerprint()["digest"]
    ids = made.encode(TEXT.encode())
    assert made.decode(ids) == TEXT.encode()
    assert len(ids) < len(TEXT.encode()) * 0.6
    assert made.end_of_document not in made.encode(b"<|endoftext|>")
    assert made.token_bytes[made.end_of_document] == 0
    in_all = len(TEXT.encode()) + len("<|endoftext|> [MASK] the hat\n") + len("that catthis")
    assert (row["bytes"], row["words"]) == (in_all, len(TEXT.split()) + 4 + 3)


def test_wordpiece_lowers_case_where_asked(text, tmp_path, capsys):
    out = tmp_path / "wordpiece.json"
    assert main(words(text, out, "wordpiece", 100, "--lowercase")) == 0
    assert f"'kind': 'wordpiece', 'path': '{out}'" in capsys.readouterr().out
    made = WordPiece(str(out))
    assert (made.pad_id, made.unk_id, made.cls_id, made.sep_id, made.mask_id) == (0, 1, 2, 3, 4)
    assert made.decode(made.encode("THE Caf\u00e9 sat".encode())) == b"the cafe sat"
    assert made.mask_id not in made.encode(b"[MASK]")
    assert main(words(text, tmp_path / "cased.json", "wordpiece", 100)) == 0
    cased = WordPiece(str(tmp_path / "cased.json"))
    assert cased.decode(cased.encode("the caf\u00e9".encode())) == "the caf\u00e9".encode()
    assert cased.unk_id in cased.encode(b"ZZZ")


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_the_same_text_gives_the_same_file(text, tmp_path, kind):
    # In processes of their own: hash tables start from another seed in each.
    for i in range(2):
        command = [sys.executable, "-m", "vitax", *words(text, tmp_path / f"{i}.json", kind, 300)]
        subprocess.run(command, check=True, env=os.environ | {"RAYON_NUM_THREADS": str(i + 1)}, capture_output=True)
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "1.json").read_bytes()


def test_a_recipes_text_is_its_training_split(tmp_path, text, capsys):
    out = tmp_path / "t.json"
    words = ["tokenizer", "train", "--config", "gpt_shakespeare", "--kind", "bpe", "--vocab-size", "300", "--out"]
    assert main([*words, str(out), "--json"]) == 0
    plays = json.loads(capsys.readouterr().out)
    assert main([*words, str(tmp_path / "u.json"), "--json", "--config.data.source.split=[-1:]"]) == 0
    tempest = json.loads(capsys.readouterr().out)
    assert (plays["bytes"], tempest["bytes"]) == (561_565, 98_439)
    for more in ([str(text)], ["--config", "quickstart:pretrain"]):
        assert main([*words, str(tmp_path / "v.json"), *more]) == 2
        assert re.search("not both|trains on images", capsys.readouterr().err)


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "embedded_text"},
        {"kind": "embedded_pairs"},
        {"kind": "bible_chapters"},
        {"kind": "prompt_completion", "path": "pairs.jsonl"},
    ],
    ids=lambda source: source["kind"],
)
def test_every_kind_of_text_gives_its_documents(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "completion": "b"}')
    data = kinds.build({"source": source | {"split": "[:3]"}, "num_examples": 1, "length": 64})
    assert all(tokenizer_training.of_recipe(data, "x"))


def test_the_recipe_of_shakespeare_states_what_its_own_tokenizer_gives(tmp_path):
    out = tmp_path / "bpe.json"
    words = ["tokenizer", "train", "--config", "gpt_shakespeare", "--kind", "bpe", "--vocab-size", "2048", "--out"]
    assert main([*words, str(out)]) == 0
    run.check_data(recipe.load(f"gpt_shakespeare:tokenizer={out}"))


def test_what_is_wrong_is_said(text, tmp_path, capsys):
    out = tmp_path / "t.json"
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "there.json").write_text("{}")
    for arguments, message in (
        (words(tmp_path / "absent", out, "bpe", 300), "absent: no such file or folder. Expected .txt, .gz or .jsonl"),
        (words(tmp_path / "empty.txt", out, "bpe", 300), "no text in"),
        (words(text, out, "bpe", 256), "--vocab-size 256: bpe needs 257"),
        (words(text, out, "wordpiece", 20), "--vocab-size 20: the text has"),
        (words(text, tmp_path / "there.json", "bpe", 300), "there.json: is there already"),
        (words(text, tmp_path / "t.txt", "bpe", 300), "expected a name that ends in .json"),
        (words(text, out, "wordpeice", 300), 'Did you mean "wordpiece"?'),
        (words(text, out, "bpe", 300, "--lowercase"), "bpe gives every byte of a text back"),
        (words(text, out, "bpe", 300, "--field", "txt"), 'line 1: has no field "txt". Did you mean "text"'),
        (["tokenizer", "trian"], 'unknown tokenizer verb "trian". Did you mean "train"'),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not out.exists()
