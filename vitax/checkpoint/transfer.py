"""Copies of checkpoints between folders and buckets, whole or not at all.

Every file is hashed as it is read and compared with the source's seal; the copy is
read again before it counts. Into a local folder it goes under a name that is no step
and is renamed when whole. A bucket has no atomic rename: there the commit markers
come last but one and the seal last, so a copy that was cut off has no seal, is never
read from here, and is written over by the next try.

Addresses are fsspec's: a path, ``gs://`` (needs gcsfs, the extra ``gcs``), ``s3://`` (needs s3fs) ...
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from vitax.checkpoint import offline, seal
from vitax.core.errors import UserError

# Of a workdir, beside its checkpoints: what `cost`, `report` and `compare` read.
BESIDE = ("recipe.json", "metrics.jsonl", "ledger.json", "warm_start.json")
# What Orbax takes for a sign that a folder is finished; in this order, after all else.
_MARKERS = ("_CHECKPOINT_METADATA", "commit_success.txt")
# Parts of recipe.json that say which run it is: these never change when a run goes on.
_IDENTITY = ("model", "objective", "optimizer", "schedule", "seed")
_UNFINISHED = ".vitax-copy-tmp"
_CHUNK = 8 * 2**20


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder on any file system that fsspec knows.

    Attributes:
      system: the file system.
      path: without the protocol.
    """

    system: Any
    path: str

    @classmethod
    def open(cls, address: str) -> "Folder":
        """``path`` or ``protocol://path``.

        Raises:
          UserError: fsspec does not know the protocol, or lacks a package for it.
        """
        try:
            system, path = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            known = "a folder, gs:// (the extra `gcs`: pip install gcsfs) or s3:// (pip install s3fs)"
            raise UserError(f"{address}: no such file system here: {error}. Expected {known}.") from error
        return cls(system, path.rstrip("/"))

    @property
    def local(self) -> bool:
        return isinstance(self.system, LocalFileSystem)

    def __truediv__(self, name: str) -> "Folder":
        return dataclasses.replace(self, path=f"{self.path}/{name}")

    def __str__(self) -> str:
        return self.path if self.local else self.system.unstrip_protocol(self.path)

    def exists(self, name: str = "") -> bool:
        return self.system.exists(f"{self.path}/{name}".rstrip("/"))

    def names(self) -> list[str]:
        """Of what lies in the folder; [] where there is none."""
        self.system.invalidate_cache()  # a listing from before a copy is no listing
        if not self.system.isdir(self.path):
            return []
        return sorted(row["name"].rstrip("/").rsplit("/", 1)[-1] for row in self.system.ls(self.path, detail=True))

    def read(self, name: str) -> bytes:
        return self.system.cat_file(f"{self.path}/{name}")

    def chunks(self, name: str) -> Iterator[bytes]:
        with self.system.open(f"{self.path}/{name}", "rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def write(self, name: str, chunks: Iterator[bytes]) -> None:
        path = f"{self.path}/{name}"
        self.system.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        with self.system.open(path, "wb") as file:
            for chunk in chunks:
                file.write(chunk)

    def hash(self, name: str) -> str:
        """SHA-256 of a file, read again from where it lies."""
        found = hashlib.sha256()
        for chunk in self.chunks(name):
            found.update(chunk)
        return found.hexdigest()

    def steps(self) -> list[int]:
        return sorted(int(name) for name in self.names() if name.isdigit())


def copy(source: str, target: str) -> list[dict[str, Any]]:
    """Copies one step (``SOURCE@STEP``) or all of them.

    Where the source is a workdir, ``recipe.json``, ``metrics.jsonl`` and ``ledger.json``
    come along, unless the target has them and has got further.

    Args:
      source: a workdir or folder of steps, path or URL.
      target: a workdir, made if need be; a name that ends in ``checkpoints`` is a folder of steps.

    Returns:
      Rows ``step, files, to, bytes, copied`` (False: it was there already).

    Raises:
      UserError: nothing to copy, the source is damaged, or the target holds something else.
    """
    match = re.fullmatch(r"(.*?)(?:@(\d+))?", source)
    assert match is not None
    here = Folder.open(match[1])
    steps = here if here.path.endswith("checkpoints") or not (here / "checkpoints").names() else here / "checkpoints"
    there = Folder.open(target)
    landing = there if there.path.endswith("/checkpoints") else there / "checkpoints"
    found = steps.steps()
    if not found:
        raise UserError(f"{source}: no checkpoint in {here} (looked for checkpoints/STEP/).")
    if match[2] is not None and int(match[2]) not in found:
        raise UserError(f"{source}: no step {match[2]}. There are: {', '.join(map(str, found))}.")
    chosen = found if match[2] is None else [int(match[2])]
    workdirs = steps.path != here.path and landing.path != there.path
    if workdirs:
        _check_same_run(here, there)
    further = max(landing.steps(), default=-1) > chosen[-1]
    rows = [_copy_step(steps, landing, step) for step in chosen]
    for name in BESIDE if workdirs else ():
        if here.exists(name) and not (further and there.exists(name)):
            there.write(name, here.chunks(name))
    return rows


def _check_same_run(here: Folder, there: Folder) -> None:
    if not (here.exists("recipe.json") and there.exists("recipe.json")):
        return
    mine, theirs = (json.loads(folder.read("recipe.json")) for folder in (here, there))
    other = [part for part in _IDENTITY if mine.get(part) != theirs.get(part)]
    if other:
        raise UserError(
            f"{there} holds a run of another recipe than {here} ({', '.join(other)} differ); choose another folder."
        )


def _copy_step(source: Folder, target: Folder, step: int) -> dict[str, Any]:
    here, there = source / str(step), target / str(step)
    sealed = _seal_of(source, here, step)
    row = {"step": step, "files": len(sealed) + 1, "to": str(there)}
    if there.names():
        if _whole(there, sealed):
            return {**row, "bytes": sum(there.system.size(f"{there.path}/{n}") for n in sealed), "copied": False}
        if there.local or there.exists(seal.NAME):
            raise UserError(
                f"{there} is there already and is not the same checkpoint. Nothing was changed; move it away, or "
                "choose another folder."
            )
    writing = target / f"{step}{_UNFINISHED}" if target.local else there
    if writing.names():  # of a copy that was cut off
        writing.system.rm(writing.path, recursive=True)
    num_bytes = sum(_copy_file(here, writing, name, sealed[name]) for name in sorted(sealed, key=_last))
    for name in sealed:
        if writing.hash(name) != sealed[name]:
            raise UserError(f"{writing / name}: reads otherwise than it was written; is the disk going bad? Try again.")
    writing.write(seal.NAME, iter([seal.pack(sealed).encode()]))
    if target.local:
        os.rename(writing.path, there.path)
    return {**row, "bytes": num_bytes, "copied": True}


def _last(name: str) -> tuple[int, int, str]:
    """Sorts commit markers behind everything else, the outermost at the very end."""
    base = name.rsplit("/", 1)[-1]
    return (_MARKERS.index(base) + 1 if base in _MARKERS else 0, -name.count("/"), name)


def _copy_file(source: Folder, target: Folder, name: str, expected: str) -> int:
    """Copies a file and returns its size."""
    digest = hashlib.sha256()
    num_bytes = 0

    def hashed() -> Iterator[bytes]:
        nonlocal num_bytes
        for chunk in source.chunks(name):
            digest.update(chunk)
            num_bytes += len(chunk)
            yield chunk

    try:
        target.write(name, hashed())
    except FileNotFoundError as error:
        raise UserError(f"{source} is damaged: file {name} is missing. Nothing of it counts as copied.") from error
    if digest.hexdigest() != expected:
        raise UserError(f"{source} is damaged: file {name} is not what was written. Nothing of it counts as copied.")
    return num_bytes


def _seal_of(folder: Folder, here: Folder, step: int) -> dict[str, str]:
    """file -> SHA-256 of a step; made afresh for a local one that was killed before it was sealed."""
    try:
        return seal.unpack(here.read(seal.NAME))
    except FileNotFoundError:
        pass
    except ValueError as error:
        raise UserError(f"{here} is damaged: {error}.") from error
    if not here.local:
        raise UserError(f"{here} has no seal ({seal.NAME}): it is a copy that was cut off. Copy it there again.")
    wrong = offline.problems(Path(folder.path), step)
    if wrong:
        raise UserError(f"{here} is damaged: {wrong[0]}.")
    return seal.hashes(Path(here.path))


def _whole(folder: Folder, sealed: dict[str, str]) -> bool:
    try:
        same = seal.unpack(folder.read(seal.NAME)) == sealed
        return same and all(folder.hash(name) == digest for name, digest in sealed.items())
    except (FileNotFoundError, ValueError):
        return False
