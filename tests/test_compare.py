import json
import math

import pytest

from vitax import compare
from vitax.__main__ import main
from vitax.core.errors import UserError


def run(folder, lr, rows, account=None, **more):
    folder.mkdir(parents=True)
    recipe = {"paper": {"row": str(folder)}, "optimizer": {"lr": lr}, "data": {"ops": [{"kind": "flip"}]}, **more}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if account:
        (folder / "ledger.json").write_text(json.dumps(account))
    return folder


ROWS = [
    {"step": 1, "train/loss": 3.0, "lr": 0.1},
    {"step": 2, "val/accuracy": 0.5, "val/loss": 1.0},
    {"step": 4, "val/accuracy": 0.7, "val/loss": 0.8},
    {"step": 6, "val/accuracy": 0.6, "val/loss": 0.9},
    {"step": 6, "train/loss": 2.0, "lr": 0.0},
]


@pytest.fixture
def two(tmp_path):
    account = {"tpu_v3_core_days": 0.5, "usd": 12.0, "wall_seconds": 600.0, "goodput": 0.9, "examples_per_second": 1e3}
    return [
        run(tmp_path / "a", 0.1, ROWS, account | {"starts": 2}),
        run(tmp_path / "b", 0.2, [{"step": 3, "val/accuracy": 0.65}], mesh={"data": 2}),
    ]


def test_best_and_last_of_each_metric(two):
    first, second = compare.compare(two)["runs"]
    assert first["metrics"]["val/accuracy"] == {"last": 0.6, "best": 0.7, "best_step": 4}
    assert first["metrics"]["val/loss"] == {"last": 0.9, "best": 0.8, "best_step": 4}
    assert first["metrics"]["train/loss"] == {"last": 2.0, "best": 2.0, "best_step": 6}
    assert "lr" not in first["metrics"]
    assert second["step"] == 3
    assert list(first["metrics"])[-1] == "train/loss"


def test_cost_and_throughput(two):
    first, second = compare.compare(two)["runs"]
    assert first["cost"]["tpu_v3_core_days"] == 0.5
    assert (first["cost"]["wall_seconds"], first["cost"]["goodput"], first["cost"]["examples_per_second"]) == (
        600,
        0.9,
        1e3,
    )
    assert set(second["cost"].values()) == {None}


def test_fields_that_differ_and_no_others(two):
    assert compare.compare(two)["differences"] == {"mesh.data": [None, 2], "optimizer.lr": [0.1, 0.2]}


def test_nan_is_never_the_best():
    rows = [{"step": 1, "val/loss": math.nan}, {"step": 2, "val/loss": 3.0}, {"step": 3, "val/loss": math.nan}]
    assert compare.metrics(rows)["val/loss"]["best"] == 3.0


def test_folders_of_the_same_name_are_told_apart(tmp_path):
    folders = [run(tmp_path / name / "run", 0.1, ROWS) for name in ("x", "y")]
    assert [r["name"] for r in compare.compare(folders)["runs"]] == ["x/run", "y/run"]


def test_text_marks_the_better_run(two):
    shown = "\n".join(compare.lines(compare.compare(two)))
    best = next(line for line in shown.splitlines() if line.startswith("val/accuracy, best"))
    assert best.split() == ["val/accuracy,", "best", "0.7000", "at", "4", "*", "0.6500", "at", "3"]
    last = next(line for line in shown.splitlines() if line.startswith("val/accuracy, last"))
    assert last.endswith("0.6500 *")
    assert "$12.00" in shown
    assert "unknown" in shown
    assert "recipe: 2 fields differ" in shown
    assert "10.0 min" in shown


def test_what_is_no_run_is_said(two, tmp_path, capsys):
    with pytest.raises(UserError, match="expected at least two"):
        compare.compare(two[:1])
    with pytest.raises(UserError, match=r"no recipe.json there.*Workdirs beside it: \S+/a, \S+/b"):
        compare.compare([two[0], tmp_path / "c"])
    assert main(["compare", *map(str, two), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["differences"]["optimizer.lr"] == [0.1, 0.2]
