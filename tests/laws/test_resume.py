"""Started again, a run goes on where it stopped: real processes, real signals."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.conftest import tiny_config

DIGEST = re.compile(r"state digest=([0-9a-f]{16}) step=(\d+)")


def recipe_file(folder, **changes):
    path = folder / "tiny.py"
    config = tiny_config(checkpoint__every={"steps": 3}, duration={"steps": 16}, **changes)
    path.write_text(
        f"from ml_collections import ConfigDict\n\ndef get_config(variant=''):\n    return ConfigDict({config!r})\n"
    )
    return path


def start(recipe, workdir, *overrides, devices=1, **env):
    """One process of ``vitax train``; stdout and stderr together."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices), **env}
    command = [sys.executable, "-m", "vitax", "train", "--config", str(recipe), "--workdir", str(workdir), *overrides]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process, timeout=300):
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def train(*args, **kwargs):
    return finish(start(*args, **kwargs))


def digest(output):
    found = DIGEST.findall(output)
    assert found, output
    return found[-1]


def rows(workdir):
    timing = ("examples_per_second", "data_wait_fraction")
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in timing} for row in lines]


def wait_for(process, text):
    """Reads output until a line holds ``text``."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return
    raise AssertionError(f"{text!r} never came:\n{''.join(lines)}")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    code, output = train(recipe_file(folder), folder / "run")
    assert code == 0, output
    return folder / "run", digest(output)


def test_killed_runs_end_with_the_same_bits_and_metrics(tmp_path, straight):
    """kill -9 at random moments, dropout, mixup, averages and asynchronous saves on."""
    recipe, workdir = recipe_file(tmp_path), tmp_path / "run"
    pause = random.Random(0)
    for _ in range(2):
        process = start(recipe, workdir)
        wait_for(process, "step 2/16")
        time.sleep(pause.uniform(0, 0.3))
        process.kill()
        process.wait()
        process.stdout.close()
    code, output = train(recipe, workdir)
    assert code == 0, output
    assert digest(output) == straight[1]
    assert rows(workdir) == rows(straight[0])
    assert json.loads((workdir / "ledger.json").read_text())["last_step"] == 16


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(20))
def test_killed_at_any_moment(tmp_path, straight, trial):
    """From before the first device to after the last save: 20 moments, each a run of its own."""
    recipe, workdir = recipe_file(tmp_path), tmp_path / "run"
    process = start(recipe, workdir)
    time.sleep(random.Random(trial).uniform(1.0, 12.0))
    process.kill()
    process.communicate()
    code, output = train(recipe, workdir)
    assert code == 0, output
    assert digest(output) == straight[1]
    assert rows(workdir) == rows(straight[0])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_save_say_how_to_go_on_and_exit(tmp_path, straight, number, code):
    recipe, workdir = recipe_file(tmp_path), tmp_path / "run"
    process = start(recipe, workdir)
    wait_for(process, "step 2/16")
    process.send_signal(number)
    returned, output = finish(process)
    assert returned == code, output
    assert "vitax train --config" in output  # the command that goes on
    assert re.search(r"^cost: .* wall, \d+% productive, .* TPUv3-core-days", output, re.MULTILINE)
    saved = max(int(p.name) for p in (workdir / "checkpoints").iterdir())
    assert 2 <= saved < 16
    returned, output = train(recipe, workdir)
    assert returned == 0, output
    assert f"Resumed at step {saved}" in output
    assert digest(output) == straight[1]
    assert rows(workdir) == rows(straight[0])


def test_a_finished_run_started_again_does_nothing_and_says_so(straight):
    before = (straight[0] / "metrics.jsonl").read_text()
    code, output = train(straight[0].parent / "tiny.py", straight[0])
    assert code == 0, output
    assert digest(output) == straight[1]
    assert (straight[0] / "metrics.jsonl").read_text() == before


def test_another_topology_goes_on_with_the_same_data_and_close_numbers(tmp_path, straight):
    recipe, workdir = recipe_file(tmp_path), tmp_path / "run"
    mesh = ("--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.mesh.tensor=2")
    process = start(recipe, workdir)
    wait_for(process, "step 4/16")
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 75
    code, output = train(recipe, workdir, *mesh, "--config.accumulate=2", devices=8)
    assert code == 0, output
    for got, want in zip(rows(workdir), rows(straight[0]), strict=True):
        assert got.keys() == want.keys()
        assert got["step"] == want["step"]
        if "train/loss" in want:
            assert got["train/loss"] == pytest.approx(want["train/loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("--config.optimizer.lr=0.5", "optimizer.lr: 0.001 -> 0.5"),
        ("--config.data.batch_size=32", "data.batch_size: 16 -> 32"),
        ("--config.seed=7", "seed: 1 -> 7"),
        ("--config.model.width=64", "model.width: 32 -> 64"),
        ("--config.duration.steps=20", "duration.steps: 16 -> 20"),  # a cosine depends on its length
        ("--config.objective.label_smoothing=0.1", "objective.label_smoothing"),
    ],
)
def test_another_recipe_in_the_same_workdir_is_an_error(straight, override, line):
    code, output = train(straight[0].parent / "tiny.py", straight[0], override)
    assert code == 2
    assert line in output
    assert "Traceback" not in output


def two_processes(recipe, workdir, *overrides):
    with socket.socket() as s:  # a free port
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    return [
        start(
            recipe,
            workdir,
            *overrides,
            devices=2,
            JAX_COORDINATOR_ADDRESS=f"localhost:{port}",
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(i),
        )
        for i in range(2)
    ]


def test_two_processes_agree_with_one_stop_together_and_go_on(tmp_path, straight):
    recipe, workdir = recipe_file(tmp_path), tmp_path / "run"
    processes = two_processes(recipe, workdir, "--config.mesh.fsdp=2")
    wait_for(processes[0], "step 4/16")
    processes[1].send_signal(signal.SIGTERM)  # one of them is enough
    results = [finish(p) for p in processes]
    assert [code for code, _ in results] == [75, 75], results
    saved = max(int(p.name) for p in (workdir / "checkpoints").iterdir())
    assert saved < 16
    results = [finish(p) for p in two_processes(recipe, workdir, "--config.mesh.fsdp=2")]
    assert [code for code, _ in results] == [0, 0], results
    assert f"Resumed at step {saved}" in results[0][1]
    for got, want in zip(rows(workdir), rows(straight[0]), strict=True):
        assert got["step"] == want["step"]
        for name in ("train/loss", "val/loss"):
            if name in want:
                assert got[name] == pytest.approx(want[name], rel=1e-4)
    assert json.loads((workdir / "ledger.json").read_text())["starts"] == 2


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    recipe, workdir = recipe_file(tmp_path), tmp_path / "run"
    code, output = train(recipe, workdir, "--config.optimizer.lr=1e30", "--config.schedule.warmup.steps=5")
    assert code == 1, output
    assert re.search(r"Step \d+: (loss|grad_norm|param_norm) is (nan|inf)", output)
    assert "Traceback" not in output
