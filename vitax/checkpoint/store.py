"""Saving and restoring train states: asynchronous, atomic, verified.

One folder a step, written by Orbax under a temporary name and renamed when whole.
Beside the arrays travel, in the same atomic rename, the digest of every array and
plain metadata (recipe, data fingerprint, ledger), themselves under a SHA-256. The
layout on disk is a nested dictionary of leaf names, so it does not depend on the
Python classes of an optimiser, the mesh or the sharding.
"""

import contextlib
import hashlib
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax

from vitax.checkpoint import digest, seal
from vitax.core import paths, tree
from vitax.core.errors import RunError, UserError
from vitax.parallel import hosts

log = logging.getLogger("vitax")


class Damaged(Exception):
    """A checkpoint that cannot be trusted; the message says which array or file."""


def _nested(state: Any) -> dict[str, Any]:
    return flax.traverse_util.unflatten_dict(dict(tree.named_leaves(state)), sep="/")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # A failed read makes TensorStore and Orbax print hundreds of lines; ours is one.
    loggers = [logging.getLogger(n) for n in ("absl", "orbax")]
    levels = [x.level for x in loggers]
    for x in loggers:
        x.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for x, level in zip(loggers, levels):
            x.setLevel(level)


def steps_in(directory: Path) -> list[int]:
    """Complete steps in a checkpoint folder, ascending. Temporary folders do not count."""
    if not directory.is_dir():
        return []
    found = [p for p in directory.iterdir() if p.name.isdigit() and p.is_dir()]
    if paths.is_url(directory):  # nothing is renamed there: Orbax writes a marker last
        found = [p for p in found if (p / "commit_success.txt").exists()]
    return sorted(int(p.name) for p in found)


def read_metadata(directory: Path, step: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Metadata and digests of a step, without touching its arrays.

    Raises:
      Damaged: unreadable, or not what was written.
    """
    try:
        custom = json.loads((directory / str(step) / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]
        payload = custom["payload"]
        if hashlib.sha256(payload.encode()).hexdigest() != custom["sha256"]:
            raise Damaged("metadata does not match its SHA-256")
        content = json.loads(payload)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"metadata unreadable ({type(error).__name__}: {error})") from error
    return content["metadata"], content["digests"]


def read(directory: Path, step: int, digests: Mapping[str, str], wanted: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Reads arrays on this process alone, without a look at their digests.

    Args:
      directory: the folder of steps.
      step: which.
      digests: of ``read_metadata``: the names of all arrays.
      wanted: name -> ``ShapeDtypeStruct`` with a sharding, of those to read.

    Raises:
      Damaged: the storage layer cannot read them.
    """
    from orbax.checkpoint import v1 as ocp

    want: dict[str, Any] = dict.fromkeys(digests, ocp.PLACEHOLDER)
    want.update({name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for name, x in wanted.items()})
    nested = flax.traverse_util.unflatten_dict(want, sep="/")
    me = jax.process_index()
    # Each process reads alone: Orbax's own barrier would hang the others for minutes
    # where one of them finds a truncated file.
    options = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"vitax{me}"
    )
    try:
        with _quiet(), ocp.Context(multiprocessing_options=options):
            flat = flax.traverse_util.flatten_dict(ocp.load(directory / str(step), nested), sep="/")
    except Exception as error:  # whatever the storage layer raises, the step is not usable
        detail = str(error).partition(" See full TensorStore details")[0].partition("\n")[0][:200]
        raise Damaged(f"unreadable ({type(error).__name__}: {detail})") from error
    return {name: flat[name] for name in wanted}


def load(directory: Path, step: int, abstract: Any) -> Any:
    """Loads and verifies the leaves that ``abstract`` names (all, or a sub-tree).

    Args:
      directory: the folder of steps.
      step: which.
      abstract: a tree of ``ShapeDtypeStruct`` with shardings; its leaf names must be
        in the checkpoint with the same shapes and dtypes. Leaves of the checkpoint
        that it does not name are not read.

    Raises:
      UserError: names, shapes or dtypes differ (both sides are printed).
      Damaged: a file is unreadable or an array is not what was written.
    """
    _, digests = read_metadata(directory, step)
    named = tree.named_leaves(abstract)
    found = {name: text.rsplit(" ", 1)[0] for name, text in digests.items()}
    lines = [f"missing     {n}: expected {tree.describe(x)}" for n, x in named if n not in found]
    lines += [
        f"mismatched  {n}: expected {tree.describe(x)}, found {found[n]}"
        for n, x in named
        if n in found and found[n] != tree.describe(x)
    ]
    if lines:
        shown = "\n  ".join(lines[:20] + ([f"... and {len(lines) - 20} more"] if len(lines) > 20 else []))
        raise UserError(f"{directory / str(step)} does not hold this model:\n  {shown}")
    flat: dict[str, jax.Array] = {}
    problem = ""
    try:
        flat = read(directory, step, digests, dict(named))
    except Damaged as error:
        problem = str(error)
    problems = [p for p in hosts.agree("restore", problem) if p]
    if problems:
        raise Damaged(problems[0])
    loaded = jax.tree.unflatten(jax.tree.structure(abstract), [flat[name] for name, _ in named])
    # The digest is one global value: every process sees the same, and decides alike.
    wrong = [n for n, text in digest.manifest(loaded).items() if text != digests[n]]
    if wrong:
        raise Damaged(f"{len(wrong)} of {len(named)} arrays are not what was written: {', '.join(wrong[:3])}")
    return loaded


def _check_seal(folder: Path) -> None:
    problem = seal.check(folder) if jax.process_index() == 0 else ""
    for found in hosts.agree("seal", problem):
        if found:
            raise Damaged(found)


def _seal(writing: Any, folder: Path) -> None:
    try:
        writing.result()
    except Exception:  # a failed save surfaces in the main thread, in its own words
        return
    seal.write(folder)


class Store:
    """The checkpoints of one run.

    Attributes:
      directory: the folder of steps.
      last_saved: newest step that this object saved or restored.
    """

    def __init__(self, directory: Path, keep: int = 3, keep_every: int | None = None):
        """Opens the folder.

        Args:
          directory: made if it does not exist.
          keep: how many of the newest steps stay.
          keep_every: steps that are multiples of it stay for ever.
        """
        from orbax.checkpoint import v1 as ocp

        self.directory = directory if paths.is_url(directory) else directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        policies = ocp.training.preservation_policies
        policy: Any = policies.LatestN(keep)
        if keep_every:
            policy = policies.AnyPreservationPolicy([policy, policies.EveryNSteps(keep_every)])
        self._policy = policy
        self._writer: Any = None
        self._sealing: threading.Thread | None = None
        self.last_saved: int | None = None

    def _open(self) -> Any:
        # Opened at the first save, after damaged steps were moved away: Orbax lists
        # the folder once.
        if self._writer is None:
            from orbax.checkpoint import v1 as ocp

            self._writer = ocp.training.Checkpointer(
                self.directory, preservation_policy=self._policy, cleanup_tmp_directories=True
            )
        return self._writer

    def save(self, step: int, state: Any, metadata: dict[str, Any]) -> None:
        """Starts to save ``state``; returns when the arrays are copied, not when written.

        A step that is already there is left alone. An error of the save before this
        one surfaces here.
        """
        if self.last_saved == step:
            return
        payload = json.dumps({"metadata": metadata, "digests": digest.manifest(state)}, sort_keys=True)
        custom = {"payload": payload, "sha256": hashlib.sha256(payload.encode()).hexdigest()}
        self.wait()  # one save at a time, and an error of the one before surfaces as its own
        self.last_saved = step
        with self._loud():
            writing = self._open().save_async(step, _nested(state), force=True, custom_metadata=custom)
        if jax.process_index() == 0:
            self._sealing = threading.Thread(target=_seal, args=(writing, self.directory / str(step)))
            self._sealing.start()

    def wait(self) -> None:
        """Blocks until the newest save is on disk; its error, if any, surfaces here."""
        if self._writer is not None:
            with self._loud():
                self._writer.wait()
        if self._sealing is not None:
            self._sealing.join()
            self._sealing = None

    @contextlib.contextmanager
    def _loud(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever the storage layer raises
            whole = ", ".join(map(str, steps_in(self.directory))) or "none"
            detail = next(iter(str(error).splitlines()), "")
            raise RunError(
                f"The checkpoint of step {self.last_saved} could not be written to {self.directory} "
                f"({type(error).__name__}: {detail[:300]}). Whole checkpoints there: steps {whole}. "
                "Make room or mend the folder, then start the same command again."
            ) from error

    def restore(self, abstract: Any, set_aside: bool = True) -> tuple[Any, dict[str, Any], int] | None:
        """The newest step that is whole: (state, metadata, step), or None.

        Damaged steps are named in the log. Where an older one is whole and ``set_aside``
        is on, they are renamed to ``STEP.damaged`` so that the run can write those steps
        again; nothing is deleted. Where none is whole they stay, so that starting again
        is the same error and never a silent fresh start.

        Raises:
          UserError: every step is damaged.
        """
        steps, damaged = steps_in(self.directory), list[int]()
        for step in reversed(steps):
            try:
                _check_seal(self.directory / str(step))
                metadata, _ = read_metadata(self.directory, step)
                state = load(self.directory, step, abstract)
            except Damaged as problem:
                log.warning("Checkpoint %s is damaged: %s. Trying the one before.", self.directory / str(step), problem)
                damaged.append(step)
                continue
            if set_aside:
                for bad in damaged:
                    self._set_aside(bad)
            self.last_saved = step
            return state, metadata, step
        if steps:
            raise UserError(
                f"All checkpoints in {self.directory} are damaged (steps {', '.join(map(str, steps))}). "
                "Nothing was moved. Mend the files, or start in another --workdir."
            )
        return None

    def _set_aside(self, step: int) -> None:
        hosts.agree("set-aside", str(step))  # nobody reads it any more
        if jax.process_index() == 0:
            (self.directory / str(step)).rename(self._free_name(f"{step}.damaged"))
        hosts.agree("set-aside", "done")

    def _free_name(self, name: str) -> Path:
        number, path = 1, self.directory / name
        while path.exists():
            number += 1
            path = self.directory / f"{name}{number}"
        return path

    def close(self) -> None:
        """Waits for saves in flight and closes the writer."""
        if self._sealing is not None:
            self._sealing.join()
        writer, self._writer = self._writer, None
        if writer is not None:
            with self._loud():
                writer.close()
