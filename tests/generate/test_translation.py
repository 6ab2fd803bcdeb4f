"""From a recipe to translations: trained, evaluated by BLEU, translated, refused where it does not fit."""

import json

import pytest

from vitax.__main__ import main

SMALL = [
    *("model.width=16", "model.depth=1", "model.mlp_dim=32", "model.num_heads=2", "data.source.split=[:200]"),
    *("data.num_examples=58", "evaluators.test.sentences=4", "evaluators.test.beams=2"),
    *("duration.steps=2", "schedule.warmup.steps=1", "log.every.steps=1"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("transformer") / "run"
    words = [f"--config.{o}" for o in SMALL]
    assert main(["train", "--config", "transformer_bible", "--workdir", str(workdir), *words]) == 0
    return workdir


def test_a_checkpoint_translates_texts_and_files(run, capsys, tmp_path):
    words = ["generate", "--checkpoint", str(run), "--json"]
    assert main([*words, "--source", "In the beginning was the Word."]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["source"] == "In the beginning was the Word."
    assert alone["stopped"] in ("end_of_document", "max_tokens")
    assert alone["score"] < 0
    file = tmp_path / "lines.txt"
    file.write_text("He went out.\nIn the beginning was the Word.\n\n")
    assert main([*words, "--source", str(file)]) == 0
    rows = json.loads(capsys.readouterr().out)
    # Line by line, blank ones too, so that it stays beside its sources.
    assert [row["source"] for row in rows] == ["He went out.", "In the beginning was the Word.", ""]
    assert rows[1]["text"] == alone["text"]  # neighbours change nothing
    assert (rows[2]["text"], rows[2]["stopped"]) == ("", "blank")
    file.write_text("He went out.\n")
    assert main([*words, "--source", str(file)]) == 0
    assert json.loads(capsys.readouterr().out) == rows[:1]  # a file gives a list, however short
    assert main([*words, "--source", "He went out.", "--beam", "1", "--max-tokens", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] <= 3
    # An untrained model may never end: then the text is as long as was asked for, and no shorter.
    assert main([*words, "--source", "He went out.", "--beam", "1", "--max-tokens", "90"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["tokens"] == 90 or made["stopped"] == "end_of_document"


def test_it_is_evaluated_and_reported(run, capsys):
    assert main(["eval", "--checkpoint", str(run), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert 0 <= metrics["test/bleu"] <= 100
    assert 0 <= metrics["test/ended"] <= 1
    assert metrics["val/perplexity"] > 1
    page = (run / "report.html").read_text()
    assert ">Translations</h2>" in page
    assert ">Where a translation looks</h2>" in page


def test_what_does_not_fit_is_refused(run, capsys):
    for words, message in (
        (["--prompt", "x"], "an encoder-decoder translates; give --source TEXT"),
        (["--source", "word " * 300], "the model has 128 positions"),
        (["--source", "x", "--temperature", "0.5"], "leave out temperature, top-k and top-p"),
        (["--source", "x", "--seed", "1"], "top-k and top-p, and the seed"),
    ):
        assert main(["generate", "--checkpoint", str(run), *words]) == 2
        assert message in capsys.readouterr().err
