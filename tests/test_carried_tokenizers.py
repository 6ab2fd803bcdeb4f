"""A checkpoint carries its tokenizer: it works without the file, and goes on with no other."""

import json
import shutil

import pytest

from tests.conftest import tiny_config
from vitax import carried_tokenizers, tokenizer_training
from vitax.__main__ import main
from vitax.data.text import Text
from vitax.data.tokenizers import BPE

TEXT = "to be or not to be that is the question whether tis nobler in the mind to suffer\n" * 8


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A finished run whose tokenizer is gone, with another that somebody put in its place elsewhere."""
    root = tmp_path_factory.mktemp("carried")
    (root / "text.txt").write_text(TEXT)
    (root / "other.txt").write_text(TEXT[::-1])
    for name in ("text", "other"):
        tokenizer_training.train(
            tokenizer_training.of_paths([str(root / f"{name}.txt")]), "bpe", 300, root / f"{name}.json"
        )
    source = {"kind": "text", "path": str(root / "text.txt")}
    windows = len(Text(source["path"], BPE(str(root / "text.json")), 16))
    data = {"source": source, "num_examples": windows, "length": 16, "batch_size": 8, "vocab_size": 300}
    data["tokenizer"] = {"kind": "bpe", "path": str(root / "text.json")}
    config = tiny_config(
        model={"kind": "gpt", "width": 16, "depth": 1, "mlp_dim": 32, "num_heads": 2},
        objective={"kind": "language_model"},
        data=data,
        evaluators={"val": {"kind": "language", "data": {"source": source, "num_examples": windows, "batch_size": 8}}},
        duration={"steps": 2},
    )
    (root / "recipe.json").write_text(json.dumps(config))
    assert main(["train", "--config", str(root / "recipe.json"), "--workdir", str(root / "run")]) == 0
    shutil.move(root / "text.json", root / "moved.json")
    return root


def test_it_generates_evaluates_and_reports_without_the_file(world, tmp_path, capsys):
    assert main(["ckpt", "cp", str(world / "run"), str(tmp_path / "copy")]) == 0
    capsys.readouterr()
    made = []
    for run in (world / "run", tmp_path / "copy"):
        assert main(["generate", "--checkpoint", str(run), "--prompt", "to be", "--max-tokens", "4"]) == 0
        made.append(capsys.readouterr().out)
    assert made[0] == made[1]
    assert main(["eval", "--checkpoint", str(world / "run"), "--json"]) == 0
    assert "val/bits_per_byte" in json.loads(capsys.readouterr().out)["metrics"]
    assert main(["report", "--workdir", str(world / "run")]) == 0


def test_weights_in_one_file_carry_it_too(world, tmp_path, capsys):
    exported, converted, folder = (str(tmp_path / n) for n in ("e.safetensors", "c.npz", "hf"))
    assert main(["ckpt", "export", str(world / "run"), exported]) == 0
    assert main(["convert", str(world / "run"), converted, "--to", "vitax"]) == 0
    assert main(["convert", converted, folder, "--to", "hf"]) == 0
    assert (tmp_path / "hf" / "tokenizer.json").read_bytes() == (world / "moved.json").read_bytes()
    made = []
    for weights in (str(world / "run"), exported, converted):
        capsys.readouterr()
        assert main(["generate", "--checkpoint", weights, "--prompt", "to be", "--max-tokens", "4", "--json"]) == 0
        made.append(json.loads(capsys.readouterr().out)["text"])
    assert made[0] == made[1] == made[2]


def test_it_goes_on_with_its_own_tokenizer_alone(world, tmp_path, capsys):
    words = ["train", "--config", str(world / "recipe.json"), "--workdir", str(world / "run")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "no such file or folder" in error
    assert "vitax tokenizer export" in error
    assert main([*words, f"--config.data.tokenizer.path={world / 'other.json'}"]) == 2
    error = capsys.readouterr().err
    assert "another tokenizer" in error
    assert "data.tokenizer.digest: was" in error
    assert main(["tokenizer", "export", str(world / "run"), str(tmp_path / "own")]) == 0
    assert "tokenizer.json of data.tokenizer" in capsys.readouterr().out
    assert (tmp_path / "own" / "tokenizer.json").read_bytes() == (world / "moved.json").read_bytes()
    assert main([*words, f"--config.data.tokenizer.path={tmp_path / 'own'}", "--config.log.every.steps=1"]) == 0
    assert main(["tokenizer", "export", str(world / "run"), str(tmp_path / "own")]) == 2
    assert "is there already" in capsys.readouterr().err


def test_tokens_without_files_carry_nothing():
    assert carried_tokenizers.pack({"tokenizer": {"kind": "bytes"}, "source": {"kind": "text", "path": "x"}}) is None
    assert carried_tokenizers.pack({"source": {"kind": "embedded"}}) is None
    assert carried_tokenizers.unpack({"data": {"length": 3}}, None) == {"data": {"length": 3}}
