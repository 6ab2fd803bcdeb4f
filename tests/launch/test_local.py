"""A group of processes starts and ends together, whatever becomes of one of them."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.laws.test_resume import digest, recipe_file, rows
from vitax.__main__ import main
from vitax.launch import local

# Each process counts its starts in a file and then does what its plan says of that start.
CHILD = """
import os, pathlib, signal, sys, time
me, folder, processes, *plan = sys.argv[1:]
told = lambda n, f: (print(f"told {int(n)}", flush=True), os._exit(130 if n == signal.SIGINT else 75))
signal.signal(signal.SIGTERM, told)
signal.signal(signal.SIGINT, told)
starts = [pathlib.Path(folder, f"starts-{i}") for i in range(int(processes))]
number = len(starts[int(me)].read_text()) if starts[int(me)].exists() else 0
starts[int(me)].write_text("x" * (number + 1))
print(f"process {me} start {number}", flush=True)
while any(not s.exists() or len(s.read_text()) <= number for s in starts):
    time.sleep(0.02)
exec(plan[min(number, len(plan) - 1)])
"""
WAIT = "time.sleep(60)"
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


def group(folder, *plans, max_restarts=3, grace=20):
    """Runs processes; each plan is what one does at its first, second ... start."""
    (folder / "child.py").write_text(CHILD)
    command = [sys.executable, "-S", str(folder / "child.py")]
    commands = [([*command, str(i), str(folder), str(len(plans)), *plan], {}) for i, plan in enumerate(plans)]
    return local.supervise(lambda: commands, folder, grace=grace, max_restarts=max_restarts)


def starts(folder):
    return [len(p.read_text()) for p in sorted(folder.glob("starts-*"))]


def test_code_75_starts_all_again_and_does_not_count(tmp_path, capfd):
    assert group(tmp_path, ["sys.exit(75)"] * 4 + ["pass"], ["sys.exit(75)"] * 4 + ["pass"], max_restarts=0) == 0
    assert starts(tmp_path) == [5, 5]
    out, err = capfd.readouterr()
    assert [line for line in out.splitlines() if line] == [f"process 0 start {i}" for i in range(5)]
    assert err.count("+ ") == 10  # every command is shown as it runs
    assert (tmp_path / "process-1.log").read_text().count("process 1 start") == 5


def test_a_killed_process_ends_the_others_and_starts_all_again(tmp_path, capfd):
    begun = time.monotonic()
    assert group(tmp_path, [WAIT, "pass"], [WAIT, "pass"], [KILL, "pass"], [DEAF, "pass"], grace=1) == 0
    assert starts(tmp_path) == [2, 2, 2, 2]
    assert time.monotonic() - begun < 20
    assert "process 2 was killed by SIGKILL: starting all again (1 of 3)" in capfd.readouterr().err


def test_attempts_after_losses_end(tmp_path, capfd):
    assert group(tmp_path, [WAIT], [KILL], max_restarts=2, grace=1) == 1
    assert starts(tmp_path) == [3, 3]
    assert "2 restart(s) are used up" in capfd.readouterr().err


def test_the_killed_one_is_the_cause_where_others_fail_with_it(tmp_path):
    """Peers of a dead process fail in their next collective, within milliseconds."""
    fails = ["time.sleep(0.3); sys.exit(1)", "pass"]
    assert group(tmp_path, fails, ["time.sleep(0.3); " + KILL, "pass"], fails) == 0
    assert starts(tmp_path) == [2, 2, 2]


@pytest.mark.parametrize("code", [1, 2, 130])
def test_other_codes_stop_and_are_returned(tmp_path, capfd, code):
    assert group(tmp_path, [WAIT], [f"sys.exit({code})"], grace=1) == code
    assert starts(tmp_path) == [1, 1]
    assert f"process 1 exited with {code}" in capfd.readouterr().err


def test_one_that_fails_while_the_others_save_is_what_happened(tmp_path):
    assert group(tmp_path, ["sys.exit(75)"], ["time.sleep(0.5); sys.exit(1)"]) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_signals_are_passed_on_once_and_end_it(tmp_path, number, code):
    def send():
        while starts(tmp_path) != [1, 1]:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()
    assert group(tmp_path, [WAIT], [WAIT]) == code
    assert starts(tmp_path) == [1, 1]
    for i in range(2):
        assert (tmp_path / f"process-{i}.log").read_text().count(f"told {int(number)}") == 1


def test_dry_run_prints_each_process_and_runs_nothing(tmp_path, capfd):
    workdir = tmp_path / "run"
    arguments = ["launch", "local", "--config", "quickstart:scratch", "--workdir", str(workdir), "--processes", "4"]
    assert main([*arguments, "--devices", "2", "--env", "NAME=a b", "--dry-run", "--config.data.batch_size=64"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 4
    for i, line in enumerate(lines):
        assert line.startswith("NAME='a b' JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=2 JAX_COORDINATOR_ADDRESS=localhost:")
        assert f"JAX_NUM_PROCESSES=4 JAX_PROCESS_ID={i} " in line
        assert line.endswith(
            f"-m vitax train --config quickstart:scratch --workdir {workdir} --config.data.batch_size=64"
        )
    assert not workdir.exists()


def test_fake_devices_that_the_batch_does_not_divide_over_are_refused(tmp_path, capfd):
    arguments = ["launch", "local", "--config", "quickstart:scratch", "--workdir", str(tmp_path), "--devices", "7"]
    assert main([*arguments, "--dry-run"]) == 2
    assert "does not go on 7 devices: data.batch_size" in capfd.readouterr().err
    assert main([*arguments, "--dry-run", "--no-plan"]) == 0


def launched(recipe, workdir, processes, *overrides):
    """``vitax launch local``; stdout and stderr together."""
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_NUM_CPU_DEVICES", "JAX_PLATFORMS")}
    command = [sys.executable, "-m", "vitax", "launch", "local", "--config", str(recipe), "--workdir", str(workdir)]
    return subprocess.Popen(
        [*command, "--processes", str(processes), *overrides],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_one(launcher, number):
    """Kills process ``number`` after step 7, when step 3 is surely on disk; gives the whole output."""
    output = []
    for line in launcher.stdout:
        output.append(line)
        if re.search(r"\bstep 7/", line) and not any("starting all again" in x for x in output):
            os.kill(child(launcher.pid, number), signal.SIGKILL)
    assert launcher.wait() == 0, "".join(output)
    return "".join(output)


def child(launcher, number):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/environ") as environ:
                parent = int(stat.read().rpartition(")")[2].split()[1])
                if parent == launcher and f"JAX_PROCESS_ID={number}\0" in environ.read():
                    return int(pid)
        except OSError:
            continue
    raise AssertionError(f"no process {number} of {launcher}")


def test_two_processes_lose_one_and_go_on(tmp_path):
    small = ["--config.model.depth=1", "--config.evaluators={}", "--config.duration.steps=24"]
    output = kill_one(launched(recipe_file(tmp_path), tmp_path / "run", 2, *small), 1)
    assert "process 1 was killed by SIGKILL: starting all again (1 of 3)" in output
    assert re.search("Resumed at step [36] ", output)
    assert digest(output)[1] == "24"


@pytest.mark.slow
def test_four_processes_lose_one_and_end_with_the_bits_of_a_straight_run(tmp_path):
    recipe = recipe_file(tmp_path)
    launcher = launched(recipe, tmp_path / "straight", 4)
    straight, _ = launcher.communicate()
    assert launcher.returncode == 0, straight
    output = kill_one(launched(recipe, tmp_path / "run", 4), 2)
    assert "process 2 was killed by SIGKILL: starting all again (1 of 3)" in output
    assert re.search("Resumed at step [36] ", output)
    assert digest(output) == digest(straight)
    assert rows(tmp_path / "run") == rows(tmp_path / "straight")
