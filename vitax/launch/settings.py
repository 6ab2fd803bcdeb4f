"""What a launch is asked for: flags, or the same names in a TOML file, of which flags win."""

import argparse
import dataclasses
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitax.core import paths
from vitax.core.errors import UserError, suggest

KINDS = ("tpu-vm", "queued", "gke", "slurm", "local")
_CLOUD = ("tpu-vm", "queued")
_REMOTE = ("tpu-vm", "queued", "gke", "slurm")


@dataclasses.dataclass(frozen=True)
class Option:
    """One setting: a flag ``--some-name`` and a key ``some_name`` of the file.

    Attributes:
      help: what it is.
      kinds: the launchers that take it.
      default: its value where nothing is said.
      type: of the value; ``list`` may be given several times.
    """

    help: str
    kinds: tuple[str, ...] = KINDS
    default: Any = None
    type: type = str


OPTIONS: dict[str, Option] = {
    "config": Option("a recipe name or PATH.py, as train takes it"),
    "workdir": Option("where everything is left, as train takes it"),
    "name": Option("of the slice, job or job set; by default from the workdir"),
    "env": Option("NAME=VALUE for every process; may be repeated", default=[], type=list),
    "logs": Option(
        "local folder of logs and of what was submitted; WORKDIR/logs (local) or runs/launch/NAME by default", KINDS
    ),
    "grace": Option("seconds that processes have to save and end", default=300, type=int),
    "max_restarts": Option("restarts after a lost process; those after exit code 75 do not count", default=3, type=int),
    "plan": Option("check the recipe against the devices before anything is created", default=True, type=bool),
    "accelerator": Option("slice, e.g. v5litepod-256, v3-128 or v5e:16x16", ("tpu-vm", "queued", "gke")),
    "image": Option("container image with vitax in it (see launch/Dockerfile)", _REMOTE),
    "setup": Option(
        "shell command that makes vitax available, run once on every worker", ("tpu-vm", "queued", "slurm")
    ),
    "project": Option("cloud project", _CLOUD),
    "zone": Option("cloud zone", _CLOUD),
    "runtime_version": Option("software version of the TPU VM; by default that of its generation", _CLOUD),
    "network": Option("cloud network", _CLOUD),
    "spot": Option("capacity that may be taken away at any time", ("tpu-vm", "queued", "gke"), False, bool),
    "reserved": Option("capacity that you have reserved", _CLOUD, False, bool),
    "delete": Option("delete the slice when the run has ended", _CLOUD, False, bool),
    "poll_seconds": Option("how often to ask whether the slice is there", ("queued",), 30, int),
    "slices": Option("how many slices, joined by the data-centre network", ("gke",), 1, int),
    "namespace": Option("Kubernetes namespace", ("gke",), "default"),
    "service_account": Option("Kubernetes service account", ("gke",), "default"),
    "reservation": Option("name of a reservation", ("gke",)),
    "nodes": Option("how many nodes", ("slurm",), 1, int),
    "gpus_per_node": Option("GPUs of a node; one process each", ("slurm",), 8, int),
    "cpus_per_task": Option("cores of a process", ("slurm",), 8, int),
    "partition": Option("partition", ("slurm",)),
    "account": Option("account", ("slurm",)),
    "time": Option("time limit, e.g. 24:00:00", ("slurm",), "24:00:00"),
    "processes": Option("how many processes", ("local",), 1, int),
    "devices": Option(
        "fake CPU devices of each process (default 1 where there are several processes)", ("local",), 0, int
    ),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Values of all options that a launcher takes, and what the run itself is given.

    Attributes:
      kind: of ``KINDS``.
      values: option -> value; read as attributes too.
      overrides: ``--config.path=value`` for the recipe.
      dry_run: print and run nothing.
    """

    kind: str
    values: Mapping[str, Any]
    overrides: tuple[str, ...] = ()
    dry_run: bool = False

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def environment(self) -> dict[str, str]:
        """``env`` as a mapping."""
        return dict(pair.split("=", 1) for pair in self.env)

    @property
    def command(self) -> list[str]:
        """The command that every process runs."""
        return ["vitax", "train", "--config", self.config, "--workdir", self.workdir, *self.overrides]

    def need(self, *names: str) -> None:
        """Refuses where one of ``names`` was not given."""
        missing = [_flag(n) for n in names if self.values[n] in (None, "")]
        if missing:
            raise UserError(
                f"launch {self.kind}: {', '.join(missing)} missing; give it as a flag or in --settings FILE."
            )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of all launchers."""
    parser.add_argument("kind", choices=KINDS, metavar="|".join(KINDS), help="where to run")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="the same names in TOML; flags win")
    parser.add_argument("--dry-run", action="store_true", help="print what would run, and run nothing")
    for name, option in OPTIONS.items():
        where = "" if option.kinds == KINDS else f" ({', '.join(option.kinds)})"
        default = "" if option.default in (None, False, True, 0, []) else f"; default {option.default}"
        text = f"{option.help}{default}{where}"
        if option.type is bool and option.default:
            parser.add_argument(f"--no-{name}", dest=name, action="store_false", default=None, help=f"do not {text}")
        elif option.type is bool:
            parser.add_argument(_flag(name), action="store_true", default=None, help=text)
        elif option.type is list:
            parser.add_argument(_flag(name), action="append", metavar="NAME=VALUE", help=text)
        else:
            parser.add_argument(_flag(name), type=option.type, help=text)


def read(args: argparse.Namespace, overrides: list[str]) -> Settings:
    """Flags over the file over the defaults, checked.

    Raises:
      UserError: names what is unknown, of the wrong type, missing, or not for this launcher.
    """
    kind = args.kind
    for word in overrides:
        if word.startswith("-") and not word.startswith("--config."):
            flags = [_flag(n) for n in OPTIONS]
            raise UserError(f"Unknown argument {word}.{suggest(word.partition('=')[0], flags)}")
    given = {n: getattr(args, n) for n in OPTIONS if getattr(args, n) is not None}
    for name in given:
        if kind not in OPTIONS[name].kinds:
            raise UserError(f"launch {kind}: {_flag(name)} is for {', '.join(OPTIONS[name].kinds)}.")
    values = {n: o.default for n, o in OPTIONS.items() if kind in o.kinds}
    file = _read_file(args.settings, kind) if args.settings else {}
    env = [*file.get("env", []), *given.get("env", [])]  # a later one of the same name wins
    values |= file | given | {"env": env}
    settings = Settings(kind, values, tuple(overrides), args.dry_run)
    settings.need("config", "workdir")
    paths.check(settings.workdir)
    for pair in env:
        if not re.fullmatch(r"[A-Za-z_]\w*=.*", pair, re.DOTALL):
            raise UserError(f"--env {pair}: expected NAME=VALUE.")
    for name in ("grace", "poll_seconds", "slices", "nodes", "gpus_per_node", "cpus_per_task", "processes"):
        if values.get(name, 1) < 1:
            raise UserError(f"{_flag(name)} {values[name]}: expected at least 1.")
    for name in ("max_restarts", "devices"):
        if values.get(name, 0) < 0:
            raise UserError(f"{_flag(name)} {values[name]}: expected at least 0.")
    name = values["name"] or _name_from(values["workdir"])
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", name):
        raise UserError(f"--name {name}: expected at most 40 lower-case letters, digits and dashes, a letter first.")
    return dataclasses.replace(settings, values=values | {"name": name})


def _name_from(workdir: str) -> str:
    last = re.sub(r"[^a-z0-9]+", "-", workdir.rstrip("/").rpartition("/")[2].lower()).strip("-")
    return f"vitax-{last}"[:40].strip("-")


def _read_file(path: Path, kind: str) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"--settings {path}: no such file.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"--settings {path}: {error}") from error
    tables = {k: content.pop(k) for k in list(content) if k in KINDS}
    for where, part in [("", content), *tables.items()]:
        for key, value in part.items():
            _check(f"{path}: {where + '.' if where else ''}{key}", key, value, where or kind, bool(where))
    found = content | tables.get(kind, {})
    if isinstance(found.get("env"), dict):
        found["env"] = [f"{k}={v}" for k, v in found["env"].items()]
    return found


def _check(where: str, key: str, value: Any, kind: str, own: bool) -> None:
    if key not in OPTIONS:
        raise UserError(f"{where}: unknown setting.{suggest(key, OPTIONS)} Valid: {', '.join(OPTIONS)}.")
    option = OPTIONS[key]
    if kind not in option.kinds:
        table = "" if own else f" Put it under [{option.kinds[0]}], so that launch {kind} may read the same file."
        raise UserError(f"{where}: is for {', '.join(option.kinds)}.{table}")
    if option.type is list:
        good = isinstance(value, dict) or (isinstance(value, list) and all(isinstance(v, str) for v in value))
    else:
        good = isinstance(value, option.type) and not (option.type is int and isinstance(value, bool))
    if not good:
        expected = {
            list: 'a list of "NAME=VALUE" or a table',
            str: "a text",
            int: "a whole number",
            bool: "true or false",
        }
        raise UserError(f"{where}: expected {expected[option.type]}, got {value!r}.")
