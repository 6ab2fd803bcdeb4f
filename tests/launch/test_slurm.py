"""The batch script, run as Slurm would against stand-ins for its programs."""

import os
import signal
import subprocess
import threading
import time

import pytest

from vitax.__main__ import main

RUN = ["launch", "slurm", "--config", "quickstart:scratch", "--workdir", "/shared/i1k", "--no-plan", "--nodes", "2"]


def script(programs, *flags):
    programs.add("sbatch")
    assert main([*RUN, "--logs", str(programs.folder.parent / "logs"), *flags]) == 0
    (call,) = programs.calls
    (programs.folder / "calls.jsonl").unlink()
    assert call[0] == "sbatch"
    with open(call[1]) as file:
        return file.read()


def test_the_script_asks_for_what_was_asked(programs, capfd):
    text = script(
        programs, "--partition", "gpu", "--account", "me", "--env", "A=b c", "--grace", "120", "--time", "9:00"
    )
    directives = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert {"--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--requeue", "--time=9:00"} <= set(directives)
    assert {"--partition=gpu", "--account=me", "--signal=B:TERM@120", "--job-name=vitax-i1k"} <= set(directives)
    assert "export A='b c'" in text
    assert text.splitlines()[0] == "#!/bin/bash"
    lines = text.splitlines()
    assert max(i for i, x in enumerate(lines) if x.startswith("#SBATCH")) < lines.index("set -uo pipefail")
    assert "+ sbatch " in capfd.readouterr().err


@pytest.mark.parametrize(("code", "state", "requeued"), [(75, "RUNNING", 1), (75, "COMPLETING", 0), (0, "RUNNING", 0)])
def test_code_75_goes_back_into_the_queue_unless_the_job_was_cancelled(programs, code, state, requeued):
    text = script(programs)
    for name in ("srun", "squeue", "scontrol", "scancel"):
        programs.add(name)
    programs.answer([["srun", [["", code, []]]], ["squeue", [[state, 0, []]]]])
    done = subprocess.run(["bash", "-c", text], env={**os.environ, "SLURM_JOB_ID": "7"}, check=False)
    assert done.returncode == code
    assert [c for c in programs.calls if c[0] == "scontrol"] == [["scontrol", "requeue", "7"]] * requeued
    (srun,) = [c for c in programs.calls if c[0] == "srun"]
    assert srun[-5:] == ["vitax", "train", "--config", "quickstart:scratch", "--workdir", "/shared/i1k"][-5:]


def test_sigterm_before_the_time_limit_reaches_the_tasks(programs):
    text = script(programs)
    for name in ("squeue", "scontrol"):
        programs.add(name)
    programs.answer([["squeue", [["RUNNING", 0, []]]]])
    for name, body in {
        "srun": 'trap "exit 75" USR1; echo $$ > srun.pid; while true; do sleep 0.05; done',
        "scancel": '[ "$*" = "--signal=TERM 7.0" ] && kill -USR1 $(cat srun.pid)',
    }.items():
        path = programs.folder / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    job = subprocess.Popen(["bash", "-c", text], env={**os.environ, "SLURM_JOB_ID": "7"})

    def warn():
        while not (programs.folder.parent / "srun.pid").exists():
            time.sleep(0.05)
        time.sleep(0.2)
        job.send_signal(signal.SIGTERM)

    threading.Thread(target=warn).start()
    assert job.wait(timeout=30) == 75
    assert ["scontrol", "requeue", "7"] in programs.calls


def test_the_mesh_is_checked_against_the_gpus(programs, capfd):
    arguments = [a for a in RUN if a != "--no-plan"]
    assert main([*arguments, "--gpus-per-node", "3", "--dry-run"]) == 2
    assert "does not go on 6 devices: data.batch_size: 50 examples" in capfd.readouterr().err
    assert main([*arguments, "--gpus-per-node", "5", "--dry-run"]) == 0
    assert capfd.readouterr().out.splitlines()[-1].startswith("# + sbatch ")
