"""Cloud TPU VM slices, made directly or through the queue: one shell script each, shown or run."""

import os
import shlex
import signal
import subprocess
from pathlib import Path
from types import FrameType

from vitax.core.errors import EXIT_DONE, UserError
from vitax.launch import accelerators, check, files
from vitax.launch.accelerators import Accelerator
from vitax.launch.settings import Settings
from vitax.parallel.hosts import COORDINATOR_PORT

_SCRIPTS = {"tpu-vm": "tpu_vm.sh", "queued": "queued.sh"}


def launch(settings: Settings) -> int:
    """Renders the script of the launcher and runs it to its end; returns its exit code."""
    settings.need("accelerator", "project", "zone")
    if bool(settings.image) == bool(settings.setup):
        raise UserError(
            f"launch {settings.kind}: expected one of --image (a container with vitax, see launch/Dockerfile) and "
            "--setup (a command that makes vitax available on a worker), "
            + ("got both." if settings.image else "got neither.")
        )
    if settings.spot and settings.reserved:
        raise UserError("--spot and --reserved exclude each other.")
    accelerator = accelerators.parse(settings.accelerator)
    check.check(settings, topology=accelerator.topology)
    script = render(settings, accelerator)
    if settings.dry_run:
        print(script, end="")
        return EXIT_DONE
    files.need("gcloud")
    folder = files.logs(settings)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _SCRIPTS[settings.kind]
    path.write_text(script)
    return _run(path)


def render(settings: Settings, accelerator: Accelerator) -> str:
    """The whole script."""
    command = shlex.join(settings.command)
    pull = ""
    if settings.image:
        names = [*settings.environment]
        if accelerator.hosts > 1:
            names += ["JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAX_COORDINATOR_ADDRESS"]
        passed = " ".join(f'--env {n}="${n}"' for n in names)
        image = shlex.quote(settings.image)
        pull = f"sudo docker pull {image}"
        command = f"sudo docker run --rm --name vitax --privileged --net=host {passed} {image} {command}"
    stop = files.render("stop_container.sh" if settings.image else "stop.sh", {})
    worker = files.render(
        "worker.sh",
        {
            "stop": stop,
            "grace": settings.grace,
            "hosts": accelerator.hosts,
            "port": COORDINATOR_PORT,
            "exports": files.exports(settings.environment),
            "command": command,
        },
    )
    flags = {"spot": settings.spot, "reserved": settings.reserved}
    flag_text = "".join(f" --{name}" for name, on in flags.items() if on)
    if settings.network:
        flag_text += f" --network={shlex.quote(settings.network)}"
    values = files.quoted(
        {
            "name": settings.name,
            "project": settings.project,
            "zone": settings.zone,
            "accelerator": accelerator.name,
            "runtime_version": settings.runtime_version or accelerator.family.runtime,
            "setup": settings.setup or pull,
            "worker": worker,
            "stop_command": f"stop() {stop}stop TERM {settings.grace}",
            "logs": files.logs(settings),
            "max_restarts": settings.max_restarts,
            "poll_seconds": settings.values.get("poll_seconds", 0),
            "hosts": accelerator.hosts,
        }
    )
    values["delete"] = "false" if settings.delete else "true"
    values["flags"] = flag_text
    values["attempts"] = files.render("attempts.sh", values)
    return files.render(_SCRIPTS[settings.kind], values)


def _run(path: Path) -> int:
    # In its own session, so that Ctrl-C comes to the script alone, once, and not to gcloud.
    process = subprocess.Popen(["bash", str(path)], start_new_session=True, stdin=subprocess.DEVNULL, env=os.environ)

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGTERM)

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
