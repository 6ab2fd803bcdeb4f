"""`vitax ckpt` as a user meets it; the laws of its parts are in tests/checkpoint."""

import json
import shutil

import numpy as np
import pytest

from tests.checkpoint.conftest import save
from vitax import ckpt
from vitax.__main__ import main
from vitax.arguments import ARGUMENTS, BELOW, VERBS, options_of

SMALL = [
    *("--config.duration.steps=4", "--config.checkpoint.every.steps=2", "--config.model.depth=1"),
    *("--config.data.batch_size=16", "--config.evaluators.val.data.batch_size=200", "--config.optimizer.ema=0.9"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four steps, a checkpoint every two, with averages; and its digest."""
    folder = tmp_path_factory.mktemp("ckpt") / "run"
    assert main(["train", "--config", "quickstart:scratch", "--workdir", str(folder), *SMALL]) == 0
    return folder


@pytest.fixture
def workdir(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def flip_a_bit(folder):
    path = max((p for p in (folder / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))
    return path


def test_ls_shows_every_step_and_the_recipe(workdir, capsys):
    assert main(["ckpt", "ls", str(workdir), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["step"], r["state"], r["problem"]) for r in rows] == [(2, "whole", None), (4, "whole", None)]
    assert rows[0]["recipe"] == "quickstart:scratch"
    assert rows[0]["weights"] == ["params", "ema"]
    assert rows[0]["bytes"] > 1e5
    assert rows[0]["saved"] <= rows[1]["saved"]
    assert main(["ckpt", "ls", str(workdir)]) == 0
    assert "quickstart:scratch (with averages)" in capsys.readouterr().out


def test_ls_digest_is_that_of_the_run(tmp_path, capsys):
    arguments = ["train", "--config", "quickstart:scratch", "--workdir", str(tmp_path / "run"), *SMALL]
    assert main(arguments) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    digest = ckpt.listing(str(tmp_path / "run"))[-1]["digest"]
    assert told == f"state digest={digest} step=4"


def test_ls_tells_damaged_and_unsealed_steps(workdir):
    flip_a_bit(workdir / "checkpoints" / "4")
    (workdir / "checkpoints" / "2" / "files.json").unlink()
    rows = ckpt.listing(str(workdir))
    assert [r["state"] for r in rows] == ["unsealed", "damaged"]
    assert "is not what was written" in rows[1]["problem"]
    assert any("not what was written" in line for line in ckpt.listing_lines(rows))
    (workdir / "checkpoints" / "4" / "_CHECKPOINT_METADATA").write_text("{")
    rows = ckpt.listing(str(workdir))
    assert (rows[1]["state"], rows[1]["digest"]) == ("damaged", None)
    assert "(and 1 more)" in rows[1]["problem"]


def test_verify_exits_1_and_names_what_is_damaged(workdir, capsys):
    assert main(["ckpt", "verify", str(workdir)]) == 0
    assert capsys.readouterr().out.count("whole: every file and all") == 2
    path = flip_a_bit(workdir / "checkpoints" / "4")
    assert main(["ckpt", "verify", str(workdir)]) == 1
    out = capsys.readouterr().out
    assert f"file {path.relative_to(workdir / 'checkpoints' / '4')} is not what was written" in out
    assert "array " in out
    assert main(["ckpt", "verify", f"{workdir}@2", "--json"]) == 0
    assert [r["problems"] for r in json.loads(capsys.readouterr().out)] == [[]]


def test_export_takes_the_averages_and_says_so(workdir, tmp_path, capsys):
    arguments = ["ckpt", "export", str(workdir)]
    assert main([*arguments, str(tmp_path / "e.npz")]) == 0
    assert "averaged parameters (--params for those of the last step) of step 4" in capsys.readouterr().out
    assert main([*arguments, str(tmp_path / "p.npz"), "--params", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == "params"
    with np.load(tmp_path / "e.npz") as e, np.load(tmp_path / "p.npz") as p:
        assert e["head/kernel"].shape == (96, 10)
        assert any((e[name] != p[name]).any() for name in e if name != "__metadata__")
        assert json.loads(str(e["__metadata__"]))["name"] == "quickstart:scratch"


def test_a_copy_resumes_evaluates_and_has_its_costs(workdir, tmp_path, capsys):
    copy = tmp_path / "copy"
    assert main(["ckpt", "cp", f"{workdir}@2", str(copy)]) == 0
    assert "copied and verified" in capsys.readouterr().out
    assert main(["eval", "--checkpoint", str(copy), "--json"]) == 0
    assert main(["cost", "--workdir", str(copy)]) == 0
    capsys.readouterr()
    assert main(["train", "--config", "quickstart:scratch", "--workdir", str(copy), *SMALL]) == 0
    done = capsys.readouterr().out.splitlines()[-1]
    assert done == f"state digest={ckpt.listing(str(workdir))[-1]['digest']} step=4"  # as the straight run


def test_an_old_checkpoint_without_a_name_is_listed(tmp_path):
    folder = save(tmp_path / "old", (1,))
    (row,) = ckpt.listing(str(folder))
    assert row["row"] is None
    assert len(ckpt.listing_lines([{**row, "recipe": None}])) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ckpt"], "a ckpt verb is missing. Ckpt verbs: ls, verify, export, cp."),
        (["ckpt", "lss"], 'unknown ckpt verb "lss". Did you mean "ls"'),
        (["ckpt", "verfy", "x"], 'Did you mean "verify"'),
        (["ckpt", "cp", "x"], "ckpt cp: the following arguments are required: DST (usage: vitax ckpt cp"),
        (["ckpt", "ls", "/nowhere"], "ckpt ls /nowhere: no checkpoint in /nowhere"),
        (["ckpt", "verify", "gs://b/run"], "copy it first: vitax ckpt cp gs://b/run DIR"),
        (["ckpt", "export", "x", "y.npz", "--emma"], 'Did you mean "--ema"'),
        (["ckpt", "export", "x", "y.npz", "--ema", "--params"], "not allowed with argument"),
        (["docter"], 'Did you mean "doctor"'),
        (["recipes", "--explian", "x"], 'Did you mean "--explain"'),
        (["recipes", "--explain", "vit_jtf"], 'Did you mean "vit_jft"'),
        (["recipes", "--explain", "vit_jft", "--config.optimizer.lrr=3"], 'Did you mean "lr"'),
        (["recipes", "--explain", "vit_jft", "--devices", "0"], "--devices 0: expected at least 1"),
        (["recipes", "--devices", "2"], "give it with --explain"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("vitax: ")
    assert len(error.splitlines()) == 1


def test_explain_prints_text_and_json(capsys):
    arguments = ["recipes", "--explain", "vit_jft:L/16", "--config.mesh.fsdp=8"]
    assert main([*arguments, "--devices", "8"]) == 0
    out = capsys.readouterr().out
    for text in ("1,035,645", "learning rate: linear", "4e-05      as big_vision", "block_*", "mesh fsdp 8"):
        assert text in out
    assert main([*arguments, "--devices=8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sharding"]["mesh"]["fsdp"] == 8


def test_every_verb_has_its_arguments():
    below = {f"{verb} {name}" for verb, names in BELOW.items() for name in names}
    assert set(ARGUMENTS) == below | (VERBS.keys() - BELOW.keys() - {"launch"})
    assert options_of("ckpt export") == ("--json", "--ema", "--params", "--last")
