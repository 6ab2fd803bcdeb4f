"""What is wrong with this machine, and how to mend it: a list of checks.

Needs nothing but the standard library to start, so that it can tell of what is
missing. JAX is started in a process of its own, with a time limit: a chip that
another process holds, or a pod slice whose other hosts are silent, would hang it.
"""

import contextlib
import dataclasses
import glob
import importlib.metadata
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitax.core.environment import compile_cache
from vitax.core.errors import UserError

OK, WARN, FAIL = "ok", "warn", "FAIL"
DISTRIBUTION = "vitax-train"
EXTRAS = ("tpu", "cuda", "plan", "interop", "gcs", "test", "colab")
PROBE_SECONDS = 120.0
_GIB = 2**30
# Where there is less, a quick start does not fit (its peak is 0.93 GB), nor a checkpoint of a ViT-B with Adam (1 GB).
_MEMORY, _DISK_WARN, _DISK_FAIL = 2 * _GIB, 5 * _GIB, _GIB // 2
# A data set of 1,024 shards, each an open file, beside everything else.
_OPEN_FILES = 4096


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
      name: of the thing.
      status: ``ok``, ``warn`` or ``FAIL``.
      found: what is there.
      fix: how to mend it (of an ``ok``: what would add it); empty where nothing is to be done.
    """

    name: str
    status: str
    found: str
    fix: str = ""


def examine(env: Mapping[str, str] | None = None, seconds: float = PROBE_SECONDS) -> list[Check]:
    """All checks.

    Args:
      env: the environment; that of this process by default.
      seconds: how long JAX may take to start.
    """
    env = os.environ if env is None else env
    parts: tuple[Callable[[], Iterator[Check]], ...] = (
        python,
        packages,
        lambda: devices(env, probe(env, seconds), accelerator_files()),
        lambda: distributed(env),
        memory,
        lambda: disk(Path.cwd(), "disk here"),
        lambda: cache(env),
        lambda: data(env),
        open_files,
        extras,
    )
    return [check for part in parts for check in _safely(part)]


def _safely(part: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from part()
    except Exception as error:  # a machine is sick in ways that nobody thought of; the other checks still count
        yield Check("doctor", FAIL, f"a check broke: {type(error).__name__}: {error}", install_command())


def install_command(extra: str = "") -> str:
    """What installs vitax with an extra: from the clone where there is one, else by its name on the index."""
    clone = Path(__file__).absolute().parent.parent
    extras = f"[{extra}]" if extra else ""
    if (clone / "setup.cfg").is_file():
        there = "" if clone == Path.cwd() else f"cd {clone} && "
        return f"{there}pip install -c constraints.txt -e '.{extras}'"
    return f"pip install '{DISTRIBUTION}{extras}'"


# ---- Python and packages --------------------------------------------------------


def python() -> Iterator[Check]:
    """The interpreter against what the distribution asks for."""
    version = platform.python_version()
    wanted = ">=3.11"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        wanted = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"] or wanted
    if _within(version, wanted):
        yield Check("Python", OK, f"{version} ({wanted})")
    else:
        yield Check("Python", FAIL, f"{version}; vitax needs {wanted}", "make the environment with another Python")


def packages(name: str = DISTRIBUTION) -> Iterator[Check]:
    """Every package that vitax asks for against its range."""
    try:
        wanted = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        yield Check("packages", WARN, f"{name} is not installed; ranges are not known", install_command())
        return
    good = []
    for problem, text in requirements(wanted, ""):
        if problem:
            yield Check("package", FAIL, text, install_command())
        else:
            good.append(text)
    yield Check("packages", OK, f"{len(good)} within their ranges: {', '.join(good)}")
    if "vitax" in {d.metadata["Name"] for d in importlib.metadata.distributions()}:
        fix = f"pip uninstall vitax && {install_command()}"
        yield Check("package", FAIL, "the distribution `vitax` is somebody else's and shadows this one", fix)


def requirements(wanted: Sequence[str], extra: str) -> Iterator[tuple[bool, str]]:
    """(whether something is wrong, ``name version`` or what is wrong), of the requirements of one extra ("" = none).

    Args:
      wanted: as ``importlib.metadata.requires`` gives them.
      extra: which; requirements of an extra of another package (``jax[tpu]``) are followed.
    """
    from packaging.requirements import Requirement

    for line in wanted:
        requirement = Requirement(line)
        marker = requirement.marker
        if extra and (marker is None or marker.evaluate({"extra": ""})):
            continue  # asked for without the extra, too
        if marker is not None and not marker.evaluate({"extra": extra}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield True, f"{requirement.name} is not installed (needs {requirement.specifier or 'any version'})"
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield True, f"{requirement.name} {version} is installed, needs {requirement.specifier}"
        else:
            yield False, f"{requirement.name} {version}"
        for further in sorted(requirement.extras):
            yield from requirements(importlib.metadata.requires(requirement.name) or [], further)


def _within(version: str, specifier: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifier).contains(version, prereleases=True)


def extras(name: str = DISTRIBUTION) -> Iterator[Check]:
    """Each extra: installed, or the command that installs it. None is needed by all."""
    try:
        wanted = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for extra in EXTRAS:
        problems = [text for problem, text in requirements(wanted, extra) if problem]
        known = any(re.search(rf"extra == ['\"]{extra}['\"]", line) for line in wanted)
        if known and not problems:
            yield Check(f"extra {extra}", OK, "installed")
        else:
            yield Check(f"extra {extra}", OK, "not installed", install_command(extra))


# ---- devices --------------------------------------------------------------------

_PROBE = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
rows = []
for device in jax.local_devices():
    row = dict(id=device.id, kind=device.device_kind, platform=device.platform, problem=None)
    try:
        stats = device.memory_stats() or {}
        row["memory"], row["used"] = stats.get("bytes_limit"), stats.get("bytes_in_use")
        x = jax.device_put(np.ones((128, 128), np.float32), device)
        if float(jax.jit(lambda x: (x @ x).sum())(x)) != 128.0**3:
            row["problem"] = "a product of two matrices of ones comes out wrong"
    except Exception as error:
        row["problem"] = f"{type(error).__name__}: {error}"
    rows.append(row)
try:
    from vitax.recipe import auto_dtype
    dtype = auto_dtype(rows[0]["platform"])
except Exception as error:
    dtype = f"{type(error).__name__}: {error}"
print("PROBE" + json.dumps(dict(jax=jax.__version__, devices=rows, dtype=dtype)))
"""


def probe(env: Mapping[str, str], seconds: float, code: str = _PROBE) -> dict[str, Any]:
    """What JAX finds in a process of its own.

    Returns:
      ``{"jax", "devices": [...], "dtype"}``, or ``{"error": text}``.
    """
    # Without this a GPU's memory would be taken from whatever runs on it; and the clone's
    # package is found wherever this one was.
    path = [str(Path(__file__).absolute().parent.parent), env.get("PYTHONPATH", "")]
    own = {**env, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONPATH": os.pathsep.join(filter(None, path))}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a driver may hold it beyond its death
            process.communicate(timeout=5)
        return {"error": f"JAX did not start within {seconds:g} s", "timeout": True}
    for line in out.splitlines():
        if line.startswith("PROBE"):
            return json.loads(line.removeprefix("PROBE"))
    told = [line for line in err.splitlines() if line.strip()]
    return {"error": told[-1].strip()[:300] if told else f"the process ended with exit code {process.returncode}"}


def accelerator_files(root: str = "/") -> dict[str, list[str]]:
    """Device files of accelerators: extra -> paths."""
    root = root.rstrip("/")
    tpu = sorted(glob.glob(f"{root}/dev/accel[0-9]*"))
    if not tpu and any(_google(path) for path in glob.glob(f"{root}/sys/bus/pci/devices/*/vendor")):
        tpu = sorted(glob.glob(f"{root}/dev/vfio/[0-9]*"))
    found = {"tpu": tpu, "cuda": sorted(glob.glob(f"{root}/dev/nvidia[0-9]*"))}
    return {extra: paths for extra, paths in found.items() if paths}


def _google(path: str) -> bool:
    try:
        return Path(path).read_text().strip() == "0x1ae0"
    except OSError:
        return False


def devices(env: Mapping[str, str], probed: Mapping[str, Any], files: Mapping[str, Sequence[str]]) -> Iterator[Check]:
    """JAX starts, every local device computes, and no accelerator lies idle."""
    if "error" in probed:
        yield Check("devices", FAIL, probed["error"], _start_fix(env, probed, files))
        return
    rows = probed["devices"]
    kinds = {row["kind"]: [r for r in rows if r["kind"] == row["kind"]] for row in rows}
    for kind, same in kinds.items():
        text = f"{len(same)} x {kind} ({same[0]['platform']}), JAX {probed['jax']}"
        if same[0].get("memory"):
            text += f", {_size(same[0]['memory'])} each, {_size(max(r.get('used') or 0 for r in same))} in use"
        yield Check("devices", OK, text)
    broken = [row for row in rows if row["problem"]]
    for row in broken:
        fix = "restart the machine, or leave this device out; see what else runs on it"
        yield Check("compute", FAIL, f"device {row['id']} ({row['kind']}): {row['problem'][:300]}", fix)
    if not broken:
        yield Check("compute", OK, f"a compiled matrix product is right on {len(rows)} of {len(rows)} devices")
    if probed["dtype"] in ("float32", "bfloat16"):
        yield Check("dtype", OK, f"`dtype: auto` computes in {probed['dtype']} here")
    else:
        yield Check("dtype", FAIL, f"vitax cannot be imported: {probed['dtype'][:300]}", install_command())
    if all(row["platform"] == "cpu" for row in rows):
        yield from _idle(env, files)


def _idle(env: Mapping[str, str], files: Mapping[str, Sequence[str]]) -> Iterator[Check]:
    for extra, paths in files.items():
        found = f"{', '.join(paths[:4])} there, but JAX computes on the CPU"
        if env.get("JAX_PLATFORMS") == "cpu":
            yield Check("accelerator", WARN, f"{found}, as JAX_PLATFORMS=cpu asks", "unset JAX_PLATFORMS")
        else:
            yield Check("accelerator", FAIL, found, f"install the extra `{extra}`: {install_command(extra)}")


def _start_fix(env: Mapping[str, str], probed: Mapping[str, Any], files: Mapping[str, Sequence[str]]) -> str:
    if "No module named" in probed["error"]:
        return install_command()
    if env.get("JAX_PLATFORMS"):
        return f"JAX_PLATFORMS={env['JAX_PLATFORMS']} asks for it: unset it, or install the extra of that platform"
    if probed.get("timeout") and "tpu" in files:
        return "on a pod slice run this on all hosts at once; on one host, end the process that holds the chips"
    if probed.get("timeout"):
        return "see what else runs on the devices, or allow more with --timeout SECONDS"
    return f"see whether another process holds the devices; else reinstall: {install_command(next(iter(files), ''))}"


def distributed(env: Mapping[str, str]) -> Iterator[Check]:
    """Variables that make several processes one: all or none."""
    try:
        from vitax.parallel.hosts import distributed_arguments

        arguments = distributed_arguments(env)
    except UserError as error:
        yield Check("processes", FAIL, str(error).partition(": set all")[0], "set all three, or none")
    except KeyError as error:
        yield Check(
            "processes", FAIL, f"several slices announced, but {error.args[0]} is not set", f"set {error.args[0]}"
        )
    except ValueError as error:
        fix = "JAX_NUM_PROCESSES and JAX_PROCESS_ID (or those of the launcher) are whole numbers"
        yield Check("processes", FAIL, f"a count is no number: {error}", fix)
    except ImportError:
        return  # told by the packages
    else:
        how = "one" if arguments is None else f"several: {arguments or 'found by JAX itself'}"
        yield Check("processes", OK, how)


# ---- the machine ----------------------------------------------------------------


def memory(meminfo: Path = Path("/proc/meminfo"), limit: Path = Path("/sys/fs/cgroup/memory.max")) -> Iterator[Check]:
    """Host memory that is free, within the container's limit."""
    try:
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines() if ":" in line)
        total, free = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        yield Check("memory", WARN, f"not known: {meminfo} does not tell", "see `free -h`")
        return
    text = f"{_size(free)} free of {_size(total)}"
    try:
        held, used = int(limit.read_text()), int(limit.with_name("memory.current").read_text())
        free = min(free, held - used)
        text = f"{_size(free)} free of {_size(min(held, total))} (limit of the container)"
    except (OSError, ValueError):
        pass  # no limit
    if free < _MEMORY:
        yield Check(
            "memory", WARN, text, f"end other processes: the quick start alone needs {_size(_MEMORY)} to be at ease"
        )
    else:
        yield Check("memory", OK, text)


def disk(folder: Path, name: str) -> Iterator[Check]:
    """Free space where a folder is or would be made."""
    there = next(p for p in (folder, *folder.parents) if p.is_dir())
    free = shutil.disk_usage(there).free
    text = f"{_size(free)} free in {folder}"
    fix = "make room, or put workdirs (--workdir) and caches (JAX_COMPILATION_CACHE_DIR) elsewhere"
    if free < _DISK_WARN:
        yield Check(name, FAIL if free < _DISK_FAIL else WARN, text, fix)
    else:
        yield Check(name, OK, text)


def cache(env: Mapping[str, str]) -> Iterator[Check]:
    """The folder of compiled programs can be written to."""
    folder = compile_cache(env)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".vitax-doctor-"):
            pass
    except OSError as error:
        fix = "mend its permissions, or set JAX_COMPILATION_CACHE_DIR to a folder of yours"
        yield Check("cache", FAIL, f"{folder} cannot be written ({error.strerror or error})", fix)
        return
    yield Check("cache", OK, f"{folder} can be written")
    yield from disk(folder, "disk, cache")


def data(env: Mapping[str, str]) -> Iterator[Check]:
    """Data that is not embedded."""
    folder = env.get("VITAX_DATA")
    if not folder:
        fix = "only some tests and examples want it: export VITAX_DATA=FOLDER"
        yield Check("data", WARN, "VITAX_DATA is not set", fix)
    elif not Path(folder).is_dir():
        yield Check(
            "data", WARN, f"VITAX_DATA={folder}: no such folder", "set it to a folder that is there, or unset it"
        )
    else:
        names = sorted(p.name for p in Path(folder).iterdir())
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        yield Check("data", OK, f"VITAX_DATA={folder}: {', '.join(names[:6]) or 'empty'}{more}")


def open_files() -> Iterator[Check]:
    """The limit on open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft:,}"
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        most = "unlimited" if hard == resource.RLIM_INFINITY else hard
        yield Check("open files", WARN, f"{text}: too few for a data set of a thousand shards", f"ulimit -n {most}")
    else:
        yield Check("open files", OK, text)


def _size(num_bytes: float) -> str:
    return f"{num_bytes / _GIB:.1f} GiB"


# ---- for a person ---------------------------------------------------------------


def lines(checks: Sequence[Check], width: int | None = None) -> list[str]:
    """A table of the checks, each fix below what it mends, and the count."""
    width = width or max(shutil.get_terminal_size((100, 24)).columns, 60)
    left = max(len(check.name) for check in checks) + 8
    shown = []
    for check in checks:
        shown += textwrap.wrap(
            check.found,
            width,
            initial_indent=f"{check.status:<6}{check.name}".ljust(left),
            subsequent_indent=" " * left,
            break_long_words=False,
            break_on_hyphens=False,
        )
        if check.fix:  # in one line however long: commands are pasted
            shown.append(f"{'':{left}}{'add' if check.status == OK else 'fix'}: {check.fix}")
    number = {status: sum(c.status == status for c in checks) for status in (OK, WARN, FAIL)}
    return [*shown, f"{len(checks)} checks: " + ", ".join(f"{n} {status}" for status, n in number.items())]
