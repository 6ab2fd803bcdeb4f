"""A checkpoint carries its tokenizer: it works without the file, and goes on with no other."""

import json
import shutil

import pytest

from tests import pieces
from tests.conftest import tiny_config
from tests.questions import CONTEXT, squad
from vitax import carried_tokenizers, recipe, run, tokenizer_training
from vitax.__main__ import main
from vitax.core.errors import UserError
from vitax.data.text import Text
from vitax.data.tokenizers import BPE, WordPiece
from vitax.weights import reading

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
    for workdir in (world / "run", tmp_path / "copy"):
        assert main(["generate", "--checkpoint", str(workdir), "--prompt", "to be", "--max-tokens", "4"]) == 0
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


# Kind of source -> its fields, and the kinds of model and objective that take it.
STARTS = {
    "text": ({"path": "text.txt"}, "gpt", "language_model"),
    "parallel": ({"source_path": "text.txt", "target_path": "text.txt"}, "transformer", "translation"),
    "prompt_completion": ({"path": "pairs.jsonl"}, "gpt", "language_model"),
    "documents": ({"path": "text.txt"}, "bert", "masked_language_model"),
    "text_table": ({"path": "table.csv"}, "bert", "text_classification"),
    "squad": ({"path": "squad.json"}, "bert", "span"),
}


def recipe_of(kind, tokenizer):
    fields, model, objective = STARTS[kind]
    data = {"source": {"kind": kind, **fields}, "num_examples": 1, "length": 24, "batch_size": 8, "vocab_size": 300}
    plain = tiny_config(
        model={"kind": model, "width": 16, "depth": 1, "mlp_dim": 32, "num_heads": 2},
        objective={"kind": objective},
        data={**data, "tokenizer": tokenizer},
        evaluators={},
        init_from={"checkpoint": "before"},
    )
    found = recipe.build(plain).data
    plain["data"]["num_examples"] = len(found.open(found.source, "data.source", found.build_tokenizer()))
    return recipe.build(plain)


@pytest.mark.parametrize("kind", STARTS)
def test_a_start_from_other_tokens_is_refused_whatever_the_source(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("to be or not\n\nthe good film\n")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "who was it", "completion": "a film"}')
    (tmp_path / "table.csv").write_text("text,label\na film,0\nthe bad,1\n")
    (tmp_path / "squad.json").write_text(squad(CONTEXT, ("q", "who", [("Good one", CONTEXT.index("Good one"))])))
    path = pieces.write(tmp_path)
    (tmp_path / "other.txt").write_text("\n".join([*pieces.TOKENS[:-2], pieces.TOKENS[-1], pieces.TOKENS[-2]]) + "\n")
    mine, other = (recipe_of(kind, {"kind": "wordpiece", "path": p}) for p in (path, str(tmp_path / "other.txt")))
    stored = run.metadata(mine, mine.data.pipeline(0, process=(0, 1)))
    # Without the key it is looked for where older checkpoints have it.
    for metadata in (stored, {k: v for k, v in stored.items() if k != "tokenizer"}):
        monkeypatch.setattr(carried_tokenizers.store, "read_metadata", lambda *where, found=metadata: (found, {}))
        carried_tokenizers.check_start(mine, tmp_path, 1)
        with pytest.raises(UserError, match=r"trained with another tokenizer(.|\n)*data.tokenizer.digest: was"):
            carried_tokenizers.check_start(other, tmp_path, 1)
    with pytest.raises(UserError, match="trained with another tokenizer"):
        carried_tokenizers.check_weights(other, mine.config["data"])


def test_bytes_are_tokens_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("to be or not\n")
    mine, other = (
        recipe_of("text", t) for t in ({"kind": "bytes"}, {"kind": "wordpiece", "path": pieces.write(tmp_path)})
    )
    stored = run.metadata(mine, mine.data.pipeline(0, process=(0, 1)))
    assert stored["tokenizer"] == {"kind": "bytes"}
    monkeypatch.setattr(carried_tokenizers.store, "read_metadata", lambda *where: (stored, {}))
    with pytest.raises(UserError, match="data.tokenizer.kind: was"):
        carried_tokenizers.check_start(other, tmp_path, 1)


def test_a_start_from_exported_weights_has_their_tokens(world, tmp_path, capsys):
    exported = str(tmp_path / "e.safetensors")
    assert main(["ckpt", "export", str(world / "run"), exported]) == 0
    windows = {n: len(Text(str(world / "text.txt"), BPE(str(world / f"{n}.json")), 16)) for n in ("moved", "other")}
    words = ["train", "--config", str(world / "recipe.json"), "--workdir", str(tmp_path / "new")]
    words += [f"--config.init_from.checkpoint={exported}", "--config.evaluators=None"]
    other = [f"--config.data.tokenizer.path={world / 'other.json'}", f"--config.data.num_examples={windows['other']}"]
    assert main([*words, *other]) == 2
    error = capsys.readouterr().err
    assert "e.safetensors was trained with another tokenizer" in error
    assert not (tmp_path / "new").exists()
    overrides = [f"--config.data.tokenizer.path={world / 'moved.json'}", f"--config.init_from.checkpoint={exported}"]
    again = recipe.load(str(world / "recipe.json"), overrides)
    carried_tokenizers.check_weights(again, reading.load(exported).recipe["data"])


def test_one_vocabulary_in_two_forms_is_no_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("to be or not\n")
    plain = pieces.write(tmp_path)
    (tmp_path / "whole").mkdir()
    made = WordPiece(plain)
    (tmp_path / "whole" / "tokenizer.json").write_text(made._engine.to_str())
    mine, other = (recipe_of("text", {"kind": "wordpiece", "path": p}) for p in (plain, str(tmp_path / "whole")))
    assert mine.data.build_tokenizer().fingerprint() != other.data.build_tokenizer().fingerprint()
    carried_tokenizers.check_weights(mine, other.config["data"])
