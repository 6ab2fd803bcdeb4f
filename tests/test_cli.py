"""The command line as a user meets it: one small run, then every verb on it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from vitax import bill
from vitax.__main__ import main
from vitax.core.errors import UserError


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    arguments = ["train", "--config", "quickstart:scratch", "--workdir", str(folder), *SMALL]
    assert main(arguments) == 0
    return folder


SMALL = [
    "--config.duration.steps=4",
    "--config.log.every.steps=2",
    "--config.model.depth=1",
    "--config.data.batch_size=16",
    "--config.evaluators.val.data.batch_size=200",
]


def test_a_run_leaves_what_the_readme_says(workdir):
    for name in ("recipe.json", "metrics.jsonl", "ledger.json", "checkpoints", "tensorboard", "report.html"):
        assert (workdir / name).exists(), name
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    names = {"step", "train/loss", "train/accuracy", "lr", "examples_per_second", "data_wait_fraction"}
    assert [r["step"] for r in rows if names <= r.keys()] == [2, 4]
    assert [r["step"] for r in rows if "val/accuracy" in r] == [4]


def test_eval_gives_what_training_measured(workdir, capsys):
    assert main(["eval", "--checkpoint", str(workdir), "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    want = next(r for r in rows if "val/accuracy" in r)
    assert got["examples"] == 1000
    assert got["metrics"]["val/accuracy"] == want["val/accuracy"]
    assert got["metrics"]["val/loss"] == pytest.approx(want["val/loss"], rel=1e-6)


def test_eval_on_other_data(workdir, capsys):
    override = ["--config.evaluators.val.data.source.split=train", "--config.evaluators.val.data.num_examples=797"]
    assert main(["eval", "--checkpoint", str(workdir), "--json", *override]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 797


def test_report_is_one_file_that_needs_no_network(workdir):
    page = (workdir / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    for title in ("Loss and accuracy", "Ledger", "as the model sees it", "Confusion matrix", "Recipe"):
        assert title in page
    assert len(page) < 5e6


def test_cost_of_a_run(workdir, capsys):
    assert main(["cost", "--workdir", str(workdir), "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["steps"] == 4
    assert got["examples"] == 64
    assert sum(got["seconds"].values()) == got["wall_seconds"]
    assert got["executed_flops"] > 0
    assert got["paper"]["paper"] == "arXiv:2010.11929"
    assert got["usd"] is None
    assert main(["cost", "--workdir", str(workdir)]) == 0
    assert "TPUv3-core-days" in capsys.readouterr().out


def test_cost_at_another_price(workdir, capsys):
    for price in ("0.5", "cpu=0.5"):
        assert main(["cost", "--workdir", str(workdir), "--json", "--usd-per-hour", price]) == 0
        got = json.loads(capsys.readouterr().out)
        assert got["usd"] == pytest.approx(0.5 * got["device_hours"]["cpu"])
        assert got["usd_source"] == "at the price given"
    for price, message in (("TPU v4=1", 'which used "cpu"'), ("x", "expected dollars"), ("-1", "expected dollars")):
        assert main(["cost", "--workdir", str(workdir), f"--usd-per-hour={price}"]) == 2
        assert message in capsys.readouterr().err
    account = json.loads((workdir / "ledger.json").read_text())
    with pytest.raises(UserError, match='Write KIND=1 for "cpu" or "TPU v4"'):
        bill.prices(["1"], [*account["by_device_kind"], "TPU v4"])


def test_the_report_draws_where_the_time_went(workdir):
    page = (workdir / "report.html").read_text()
    assert page.count('<span class="dot"') == page.count('<span title="') >= 5
    for text in ("productive", "goodput", "arXiv:2010.11929", "no core-days published"):
        assert text in page


def test_warm_start_by_the_recipe(workdir, tmp_path, capsys):
    folder = tmp_path / "fine"
    arguments = ["train", "--config", "quickstart:finetune", "--workdir", str(folder), *SMALL]
    start = f"--config.init_from.checkpoint={workdir}"
    # Other patches, so the positions are resampled: 4 x 4 to 8 x 8.
    image = ["--config.data.image_size=56", "--config.objective.mixup=0.1"]
    assert main([*arguments, start, *image]) == 0
    told = json.loads((folder / "warm_start.json").read_text())
    assert told["resampled"] == ["pos_embedding [1, 16, 96] -> [1, 64, 96]"]
    assert {line.split()[0] for line in told["reset"]} == {"head/bias", "head/kernel"}
    assert "encoder/block_00/attention/query/kernel" in told["placed"]
    assert "Warm start from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], 'unknown verb "trian". Did you mean "train"'),
        (["train", "--config", "quickstar", "--workdir", "x"], 'Did you mean "quickstart"'),
        (["train", "--config", "quickstart:pretrian", "--workdir", "x"], 'Did you mean "pretrain"'),
        (["train", "--config", "quickstart", "--workdir", "x", "--lr=3"], "Did you mean --config.optimizer.lr?"),
        (["predict", "--checkpoint", "x", "y.jpg", "--topk", "0"], "expected at least 1"),
        ([], "Verbs: train, finetune, eval"),
        (["eval", "--checkpoint", "/nowhere"], "no checkpoint in /nowhere"),
        (["predict", "--checkpoint", "x", "/no.jpg"], "No such image file: /no.jpg"),
        (["cost", "--workdir", "/nowhere"], "no ledger.json"),
        (["cost", "--workdir", "x", "--usd-per-hr", "1"], "Unknown argument --usd-per-hr"),
        (["cost", "--paper", "--usd-per-hour", "1"], "the price of a run"),
        (["report", "--workdir", "/nowhere"], "no recipe.json"),
        (["models", "ViT-Z*"], "No model matches"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("vitax: ")
    assert "Traceback" not in error


def test_models_and_recipes_as_json(capsys):
    assert main(["models", "ViT-B*", "--json"]) == 0
    rows = {r["name"]: r for r in json.loads(capsys.readouterr().out)}
    assert rows["ViT-B/16"]["parameters"] == 86_567_656
    assert rows["ViT-B/16"]["tokens"] == 197
    assert main(["recipes", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"name", "variant", "paper", "row", "expected", "core_days"} == rows[0].keys()


def test_help_and_import_do_not_load_jax():
    heavy = ("jax", "flax", "numpy", "tensorflow", "torch")
    for code in ("import vitax", "import vitax.__main__"):
        script = f"{code}; import sys; print([m for m in {heavy} if m in sys.modules])"
        out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        assert out.strip() == "[]", code


def test_nothing_imports_tensorflow_or_torch(workdir):
    script = (
        "import sys; from vitax.__main__ import main; "
        f"main(['eval', '--checkpoint', {str(workdir)!r}]); "
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


def folder(root, classes, rng):
    from PIL import Image

    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 255, (12, 12), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


def test_own_folders_whose_classes_differ_are_refused(tmp_path, capsys):
    rng = np.random.default_rng(0)
    train, val = folder(tmp_path / "train", "abc", rng), folder(tmp_path / "val", "bc", rng)
    ops = """({"kind": "decode"}, {"kind": "resize"})"""
    arguments = ["train", "--config", "quickstart:scratch", "--workdir", str(tmp_path / "run"), *SMALL]
    arguments += [f"--config.data.source={{'kind': 'folder', 'path': '{train}'}}", f"--config.data.ops={ops}"]
    arguments += [f"--config.evaluators.val.data.source={{'kind': 'folder', 'path': '{val}'}}"]
    arguments += [f"--config.evaluators.val.data.ops={ops}", "--config.evaluators.val.data.num_examples=8"]
    assert main([*arguments, "--config.data.num_examples=12"]) == 2
    assert "Set --config.data.num_classes=3" in capsys.readouterr().err
    arguments += ["--config.data.num_examples=12", "--config.data.num_classes=3"]
    assert main([*arguments, "--config.evaluators.val.data.num_classes=2"]) == 2
    assert "every label would mean another class. Missing: a; only there: none" in capsys.readouterr().err
    folder(tmp_path / "val2", "abc", rng)
    arguments = [
        a.replace(str(val), str(tmp_path / "val2")).replace("num_examples=8", "num_examples=12") for a in arguments
    ]
    assert main(arguments) == 0  # the workdir of a run that never began is free
    image = str(tmp_path / "train" / "a" / "0.png")
    assert main(["predict", "--checkpoint", str(tmp_path / "run"), image, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert sorted(k["label"] for k in rows[0]["topk"]) == ["a", "b", "c"]
