"""TPU VMs and queued resources, end to end against a gcloud that only takes notes."""

import os
import signal
import subprocess
import threading
import time

import pytest

from vitax.__main__ import main
from vitax.launch import accelerators, settings, tpu

WHERE = ["--project=p", "--zone=z"]
RUN = ["--config", "quickstart:scratch", "--workdir", "gs://bucket/i1k", "--no-plan", *WHERE]
SLICE = ["--accelerator", "v5litepod-16", "--setup", "pip install vitax-train"]
FOUR = [None, None, None, None]


def launch(kind, *more):
    return main(["launch", kind, *RUN, *SLICE, *more])


def short(calls):
    """``["describe", "create", "ssh", "ssh 4"]``: verbs; ssh of the run (which leaves logs) as ``run``."""
    return ["run" if any(w.startswith("--output-directory=") for w in c) else c[4] for c in calls]


def ssh(*attempts):
    """Answers to the ssh of the run: one list of workers' exit codes an attempt."""
    return ["--output-directory=", [["", next((c for c in codes if c), 0) or 0, codes] for codes in attempts]]


def test_a_slice_is_made_and_the_run_started_again_while_it_exits_with_75(programs, capfd):
    programs.add("gcloud")
    programs.answer([["describe", [["", 1, []]]], ssh([75] * 4, [75] * 4, [0] * 4)])
    assert launch("tpu-vm") == 0
    assert short(programs.calls) == ["describe", "create", "ssh", "run", "run", "run"]
    create, setup, run = programs.calls[1], programs.calls[2], programs.calls[3]
    assert create[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "create", "vitax-i1k"]
    assert {*WHERE, "--accelerator-type=v5litepod-16", "--version=v2-alpha-tpuv5-lite"} == set(create[6:])
    assert setup[5:] == ["vitax-i1k", *WHERE, "--worker=all", "--quiet", "--command=pip install vitax-train"]
    assert "--worker=all" in run
    assert "vitax train --config quickstart:scratch --workdir gs://bucket/i1k" in run[-1]
    out, err = capfd.readouterr()
    assert err.count("+ gcloud compute tpus tpu-vm") == 6
    assert "log of worker 0" in out
    logs = programs.folder.parent / "runs" / "launch" / "vitax-i1k"
    assert (logs / "attempt-2" / "3.log").read_text().endswith("vitax: exit code 75\n")
    assert (logs / "tpu_vm.sh").exists()


@pytest.mark.parametrize(
    ("attempts", "code", "runs"),
    [
        ([[0, 1, 0, 0]], 1, 1),
        ([[2] * 4], 2, 1),
        ([[75] * 4, [130] * 4], 130, 2),
        ([[75, 75, None, 75], [0] * 4], 0, 2),  # a connection broke
        ([[0, 0, None, 0], [0] * 4], 0, 2),
        ([[1, 1, 137, 1], [0] * 4], 0, 2),  # one was killed, and the others failed with it
        ([[134] * 4], 1, 3),  # again and again
    ],
)
def test_outcomes(programs, attempts, code, runs):
    programs.add("gcloud")
    programs.answer([["describe", [["READY", 0, []]]], ssh(*attempts)])
    assert launch("tpu-vm", "--max-restarts", "2") == code
    assert short(programs.calls).count("run") == runs
    assert "create" not in short(programs.calls)  # it was there


def test_a_slice_that_is_gone_ends_it_and_names_the_queue(programs, capfd):
    programs.add("gcloud")
    programs.answer([["describe", [["READY", 0, []], ["PREEMPTED", 0, []]]], ssh(FOUR)])
    assert launch("tpu-vm", "--delete") == 1
    assert short(programs.calls) == ["describe", "ssh", "run", "describe", "delete"]
    assert "vitax launch queued" in capfd.readouterr().err


def test_a_queued_resource_is_waited_for_and_asked_for_again_when_taken_away(programs):
    programs.add("gcloud")
    states = ["", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE", "SUSPENDED", "SUSPENDED", "ACTIVE"]
    programs.answer([["describe", [[s, not s, []] for s in states]], ssh([75] * 4, FOUR, [0] * 4)])
    assert launch("queued", "--spot", "--poll-seconds", "1", "--delete") == 0
    assert short(programs.calls) == [
        *["describe", "create", "describe", "describe", "describe", "ssh", "run", "run"],
        *["describe", "describe", "delete", "create", "describe", "ssh", "run", "delete"],
    ]
    create = programs.calls[1]
    assert create[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "vitax-i1k"]
    flags = {"--node-id=vitax-i1k", "--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite"}
    assert {*WHERE, *flags, "--spot"} == set(create[6:])
    assert programs.calls[10][3:] == ["queued-resources", "delete", "vitax-i1k", *WHERE, "--force", "--quiet"]


def test_a_queued_run_that_fails_stops(programs):
    programs.add("gcloud")
    programs.answer([["describe", [["ACTIVE", 0, []]]], ssh([1] * 4)])
    assert launch("queued", "--reserved") == 1
    assert short(programs.calls) == ["describe", "ssh", "run"]


def test_dry_run_prints_the_script_that_would_run_and_runs_nothing(programs, capfd):
    programs.add("gcloud")
    programs.answer([["describe", [["READY", 0, []]]], ssh([0] * 4)])
    assert launch("tpu-vm", "--dry-run", "--env", "A=it's") == 0
    printed = capfd.readouterr().out
    assert programs.calls == []
    assert not (programs.folder.parent / "runs").exists()
    assert launch("tpu-vm", "--env", "A=it's") == 0
    assert (programs.folder.parent / "runs/launch/vitax-i1k/tpu_vm.sh").read_text() == printed
    assert subprocess.run(["bash", "-n"], input=printed, text=True, check=False).returncode == 0


def test_without_gcloud_it_says_how_to_get_it(programs, capfd, monkeypatch):
    monkeypatch.setenv("PATH", str(programs.folder))
    assert launch("queued") == 2
    assert "install the Google Cloud CLI" in capfd.readouterr().err


def test_ctrl_c_stops_the_workers_and_starts_nothing_again(programs, capfd):
    programs.add("gcloud")
    real = programs.folder / "gcloud"
    waits = 'if any(w.startswith("--output-directory=") for w in sys.argv):\n    import time; time.sleep(3)\n'
    text = real.read_text().replace("for pattern, answers", waits + "for pattern, answers", 1)
    real.write_text(text)
    programs.answer([["describe", [["READY", 0, []]]], ssh([75] * 4)])

    def interrupt():
        while "run" not in short(programs.calls):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    assert launch("tpu-vm") == 75
    assert short(programs.calls) == ["describe", "ssh", "run", "ssh"]
    assert programs.calls[-1][-1].endswith("stop TERM 300")


def worker(tmp_path, *flags):
    """The script that a worker of a slice of four is given, its metadata server and vitax stand-ins."""
    from vitax.arguments import parser

    args = parser().parse_args(["launch", "tpu-vm", *RUN, "--accelerator", "v5litepod-16", *flags])
    asked = settings.read(args, [])
    seen = {}
    original, tpu.files.render = tpu.files.render, lambda n, v: seen.setdefault(n, original(n, v))
    try:
        tpu.render(asked, accelerators.parse("v5litepod-16"))
    finally:
        tpu.files.render = original
    return seen["worker.sh"]


def test_a_worker_finds_the_others_and_reports_its_exit_code(programs, tmp_path, monkeypatch):
    programs.add("curl")
    programs.answer(
        [
            ["agent-worker-number", [["2", 0, []]]],
            ["worker-network-endpoints", [["unused:8470:10.0.0.5,unused:8470:10.0.0.6", 0, []]]],
        ]
    )
    vitax = programs.folder / "vitax"
    vitax.write_text("#!/bin/bash\nenv | grep -E '^(JAX_|A=)' | sort\nexit 75\n")
    vitax.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("JAX_NUM_CPU_DEVICES", "JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    script = worker(tmp_path, "--setup", "true", "--env", "A=b c")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 75
    assert done.stdout.splitlines() == [
        "A=b c",
        "JAX_COORDINATOR_ADDRESS=10.0.0.5:8476",
        "JAX_NUM_PROCESSES=4",
        "JAX_PROCESS_ID=2",
        "vitax: exit code 75",
    ]
    assert not (tmp_path / ".vitax.pid").exists()


def test_a_worker_ends_what_a_broken_connection_left_before_it_starts(programs, tmp_path, monkeypatch):
    programs.add("curl")
    vitax = programs.folder / "vitax"
    vitax.write_text("#!/bin/bash\necho here\n")
    vitax.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    left = subprocess.Popen(["bash", "-c", "trap 'exit 75' TERM; while true; do sleep 0.1; done # vitax"])
    (tmp_path / ".vitax.pid").write_text(str(left.pid))
    threading.Thread(target=left.wait).start()  # as init would
    script = worker(tmp_path, "--setup", "true")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert "vitax: exit code 0" in done.stdout
    assert left.wait() == 75


def test_a_container_gets_the_variables_of_its_process(tmp_path):
    script = worker(tmp_path, "--image", "r/vitax", "--env", "A=b c")
    assert "export A='b c'" in script
    assert 'sudo docker run --rm --name vitax --privileged --net=host --env A="$A"' in script
    assert '--env JAX_PROCESS_ID="$JAX_PROCESS_ID"' in script
    assert "r/vitax vitax train --config quickstart:scratch" in script
    assert 'docker stop --time="$2" vitax' in script
