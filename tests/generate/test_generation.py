"""From a recipe to text: trained, evaluated, continued, reported."""

import json

import pytest

from tests.tokenizer_files import write_bpe
from vitax.__main__ import main

SMALL = [
    *("model.width=16", "model.depth=1", "model.mlp_dim=32", "model.num_heads=2", "data.batch_size=8"),
    *("duration.steps=2", "schedule.warmup.steps=1", "log.every.steps=1", "evaluators.val.data.batch_size=256"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("gpt") / "run"
    words = [f"--config.{o}" for o in SMALL]
    assert main(["train", "--config", "gpt_shakespeare", "--workdir", str(workdir), *words]) == 0
    return workdir


def test_a_checkpoint_continues_a_prompt(run, capsys):
    words = ["generate", "--checkpoint", str(run), "--prompt", "To be\u00e9", "--max-tokens", "12", "--seed", "3"]
    assert main([*words, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["prompt"] == "To be\u00e9"
    assert (made["tokens"], made["stopped"]) in [(12, "max_tokens"), (made["tokens"], "end_of_document")]
    assert main(words) == 0
    assert capsys.readouterr().out == f"To be\u00e9{made['text']}\n"


def test_several_prompts_stops_beams_and_streams(run, capsys):
    words = ["generate", "--checkpoint", str(run), "--max-tokens", "20", "--top-k", "200"]
    assert main([*words, "--prompt", "A", "--prompt", "Once upon", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["prompt"] for row in rows] == ["A", "Once upon"]
    assert main([*words, "--prompt", "A", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone == rows[0]  # neighbours change nothing
    assert main([*words, "--prompt", "A", "--stream"]) == 0
    assert capsys.readouterr().out == f"A{alone['text']}\n"
    stop = alone["text"][5:7]
    assert main([*words, "--prompt", "A", "--stop", stop, "--json"]) == 0
    stopped = json.loads(capsys.readouterr().out)
    assert (stopped["text"], stopped["stopped"]) == (alone["text"][: alone["text"].index(stop)], "stop")
    assert main(["generate", "--checkpoint", str(run), "--prompt", "A", "--beam", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["score"] < 0


def test_it_is_evaluated_and_reported(run, capsys):
    assert main(["eval", "--checkpoint", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == 770
    assert found["metrics"]["val/bits_per_byte"] == pytest.approx(8, abs=1)
    page = (run / "report.html").read_text()
    assert ">Samples</h2>" in page
    assert ">Surprise</h2>" in page


def test_it_is_fine_tuned_on_prompts_with_the_tokens_that_it_knows(run, tmp_path, capsys):
    lines = [json.dumps({"prompt": f"{i} and {i} is ", "completion": str(2 * i)}) for i in range(60)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    spec = f"gpt_finetune:data={tmp_path / 'pairs.jsonl'},checkpoint={run}"
    rows = ("data.num_examples=7", "evaluators.val.data.num_examples=1", "evaluators.val.data.batch_size=8")
    words = ["train", "--workdir", str(tmp_path / "tuned"), *(f"--config.{o}" for o in (*SMALL[:-1], *rows))]
    assert main([*words, "--config", spec]) == 0
    assert "Warm start from" in capsys.readouterr().err
    write_bpe(tmp_path)
    words[2] = str(tmp_path / "other")
    assert main([*words, "--config", f"{spec},tokenizer={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert "was trained with another tokenizer" in error
    assert 'data.tokenizer.kind: was "bytes", is "bpe"' in error
    assert "vitax tokenizer export" in error


def test_what_does_not_fit_is_refused(run, capsys, tmp_path):
    for words, message in (
        (["generate", "--checkpoint", str(run), "--prompt", "x" * 128], "129 tokens with the mark in front"),
        (["generate", "--checkpoint", str(run), "--top-p", "1.5"], "--top-p 1.5: expected above 0 and at most 1"),
        (["predict", "--checkpoint", str(run), __file__], "a language model, which takes no images"),
        (["generate", "--checkpoint", str(run), "--source", "x"], "give --prompt instead of --source"),
        (["generate", "--checkpoint", str(run), "--prompt", "x", "--source", "x"], "give one of them"),
        (["generate", "--checkpoint", str(run), "--beam", "2", "--top-k", "3"], "leave out temperature, top-k"),
        (["generate", "--checkpoint", str(run), "--beam", "2", "--stream"], "--stream: shows one prompt"),
        (["generate", "--checkpoint", str(run), "--length-penalty", "1"], "--length-penalty: of a search"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err
