"""A run whose workdir is a bucket is the run whose workdir is a folder."""

import json
import os
import subprocess
import sys

import pytest

from tests.laws.test_resume import digest, finish, recipe_file, rows, train, wait_for


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    code, output = train(recipe_file(folder), folder / "run")
    assert code == 0, output
    return folder, digest(output)


def vitax(buckets, *arguments):
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "FAKE_BUCKETS": str(buckets)}
    command = [sys.executable, "-m", "tests.buckets", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_killed_in_a_bucket_it_goes_on_and_ends_with_the_same_bits_and_metrics(tmp_path, straight):
    buckets = tmp_path / "buckets"
    (buckets / "mine").mkdir(parents=True)
    command = ["train", "--config", recipe_file(tmp_path), "--workdir", "gs://mine/runs/a"]
    process = vitax(buckets, *command)
    wait_for(process, "step 10/16")  # the save of step 9 has begun: that of step 6 is whole
    process.kill()
    process.communicate()
    run = buckets / "mine" / "runs" / "a"
    kept = sorted(int(p.name) for p in (run / "checkpoints").iterdir() if (p / "commit_success.txt").exists())
    while kept[-1] >= 6:  # as if the kill had come while these were being written
        (run / "checkpoints" / str(kept.pop()) / "commit_success.txt").unlink()
    code, output = finish(vitax(buckets, *command))
    assert code == 0, output
    assert "Resumed at step 3 from gs://mine/runs/a/checkpoints/3" in output
    assert "damaged" not in output
    assert digest(output) == straight[1]
    assert rows(run) == rows(straight[0] / "run")
    assert (run / "report.html").exists()
    assert len(list((run / "tensorboard").iterdir())) == 2
    assert json.loads((run / "ledger.json").read_text())["last_step"] == 16
    assert not os.path.exists("gs:")
    code, output = finish(vitax(buckets, "eval", "--checkpoint", "gs://mine/runs/a", "--json"))
    assert code == 0, output
    assert json.loads(output.splitlines()[-1])["examples"] == 21
