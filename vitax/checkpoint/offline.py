"""Checkpoints looked at on the host: what is damaged, and arrays one by one.

Needs JAX's CPU backend alone, whatever made the checkpoint, and holds a few hundred
MiB of it at a time.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from vitax.checkpoint import digest, seal, store
from vitax.core import tree

# Arrays are read this many bytes at a time: opening the index costs more than small arrays do.
GROUP_BYTES = 64 * 2**20


def arrays(directory: Path, step: int, names: Iterable[str] | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of a step, in groups, each verified against its digest.

    Args:
      directory: the folder of steps.
      step: which.
      names: of the arrays wanted; all by default.

    Raises:
      Damaged: an array is unreadable or not what was written.
    """
    _, digests = store.read_metadata(directory, step)
    for group in _groups({name: digests[name] for name in (digests if names is None else names)}):
        for name, array in _read(directory, step, digests, group).items():
            if digest_of(array) != digests[name]:
                raise store.Damaged(f"array {name} is not what was written")
            yield name, array


def problems(directory: Path, step: int) -> list[str]:
    """All that is wrong with a step: every file against the seal, every array against its digest."""
    found = seal.problems(directory / str(step))
    try:
        _, digests = store.read_metadata(directory, step)
    except store.Damaged as problem:
        return [*found, str(problem)]
    for group in _groups(digests):
        found += _wrong(directory, step, digests, group)
    return found


def _wrong(directory: Path, step: int, digests: Mapping[str, str], group: Mapping[str, Any]) -> list[str]:
    try:
        read = _read(directory, step, digests, group)
    except store.Damaged:
        if len(group) == 1:
            return [f"array {next(iter(group))} is unreadable"]
        return [line for name in group for line in _wrong(directory, step, digests, {name: group[name]})]
    return [
        f"array {name} is not what was written" for name, array in read.items() if digest_of(array) != digests[name]
    ]


def digest_of(array: np.ndarray) -> str:
    """As in a manifest: ``"float32[3,4] 0123456789abcdef"``."""
    return f"{tree.describe(array)} {digest.numpy_digest(array)}"


def _read(directory: Path, step: int, digests: Mapping[str, str], group: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in store.read(directory, step, digests, group).items()}


def _groups(digests: Mapping[str, str]) -> Iterator[dict[str, jax.ShapeDtypeStruct]]:
    here = SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    group: dict[str, jax.ShapeDtypeStruct] = {}
    held = 0
    for name, text in digests.items():
        shape, dtype = digest.shape_of(text)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if group and held + size > GROUP_BYTES:
            yield group
            group, held = {}, 0
        group[name] = jax.ShapeDtypeStruct(shape, dtype, sharding=here)
        held += size
    if group:
        yield group
