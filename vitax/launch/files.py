"""The files of ``launch/``: plain text with ``{{placeholders}}``, and commands that are shown as they run."""

import shlex
import shutil
import string
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import vitax
from vitax.core.errors import UserError
from vitax.launch.settings import Settings

# command -> how to get it
PROGRAMS = {
    "gcloud": "install the Google Cloud CLI (cloud.google.com/sdk/docs/install), then run gcloud auth login",
    "kubectl": "install it with gcloud components install kubectl gke-gcloud-auth-plugin, then point it at the "
    "cluster with gcloud container clusters get-credentials CLUSTER",
    "sbatch": "run this on a login node of the Slurm cluster; it is part of Slurm",
}


class Template(string.Template):
    """``string.Template`` with ``{{name}}``, since ``$`` belongs to the shell."""

    delimiter = "{{"
    pattern = r"\{\{(?:(?P<named>[a-z_]+)\}\}|(?P<braced>(?!))|(?P<escaped>(?!))|(?P<invalid>))"  # type: ignore[assignment]


def folder() -> Path:
    """Where the files lie: beside the package in a clone, in it where it is installed."""
    package = Path(vitax.__file__).parent
    installed = package / "launch" / "files"
    return installed if installed.is_dir() else package.parent / "launch"


def render(name: str, values: Mapping[str, Any]) -> str:
    """One file with its placeholders filled in."""
    return Template((folder() / name).read_text()).substitute(values)


def quoted(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as single words of a shell."""
    return {name: shlex.quote(str(value)) for name, value in values.items()}


def logs(settings: Settings, workdir: str = "") -> Path:
    """The local folder of logs."""
    if settings.logs:
        return Path(settings.logs)
    return Path(workdir, "logs") if workdir and "://" not in workdir else Path("runs", "launch", settings.name)


def words(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """A command as a person would type it."""
    return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in (environment or {}).items()), shlex.join(command)])


def echo(line: str) -> None:
    """Shows a command before it runs."""
    print(f"+ {line}", file=sys.stderr, flush=True)


def need(program: str) -> None:
    """Refuses where a program is not on the PATH; says how to get it."""
    if shutil.which(program) is None:
        raise UserError(f"{program}: not found on this machine; {PROGRAMS[program]}. (--dry-run needs none of it.)")


def exports(environment: Mapping[str, str]) -> str:
    """Lines of a shell that set variables."""
    return "\n".join(f"export {k}={shlex.quote(v)}" for k, v in environment.items())


def write(path: Path, text: str) -> None:
    """Leaves what is submitted beside the logs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
