"""Slurm: one batch script, shown or handed to sbatch."""

import shlex
import subprocess

from vitax.core.errors import EXIT_DONE, EXIT_FAILED
from vitax.launch import check, files
from vitax.launch.settings import Settings


def launch(settings: Settings) -> int:
    """Submits the job; Slurm does the rest."""
    check.check(settings, settings.nodes * settings.gpus_per_node, platform="gpu")
    script = render(settings)
    path = files.logs(settings) / "slurm.sbatch"
    command = ["sbatch", str(path)]
    if settings.dry_run:
        print(script, end="")
        print(f"# + {files.words(command)}")
        return EXIT_DONE
    files.need("sbatch")
    files.write(path, script)
    files.echo(files.words(command))
    return EXIT_DONE if subprocess.run(command, check=False).returncode == 0 else EXIT_FAILED


def render(settings: Settings) -> str:
    """The batch script."""
    command = shlex.join(settings.command)
    if settings.image:  # by the container plug-in of Slurm that GPU clusters have (pyxis)
        command = f"--container-image={shlex.quote(settings.image)} {command}"
    directives = [f"#SBATCH --{n}={settings.values[n]}" for n in ("partition", "account") if settings.values[n]]
    names = ("nodes", "gpus_per_node", "cpus_per_task", "time", "grace", "name")
    text = files.render(
        "slurm.sbatch",
        {
            **{n: settings.values[n] for n in names},
            "logs": files.logs(settings),
            "directives": "\n".join(directives),
            "exports": files.exports(settings.environment),
            "setup": settings.setup or "",
            "command": command,
        },
    )
    return text.replace("\n\n\n", "\n")
