"""Parameters of a checkpoint in one file for other programs: safetensors or NumPy's npz."""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vitax.checkpoint import digest, offline, store, warm_start
from vitax.core.errors import UserError

SUFFIXES = (".safetensors", ".npz")
METADATA_ENTRY = "__metadata__"  # of an npz, which has no place for it


def export(directory: Path, step: int, out: Path, weights: Literal["ema", "params"] | None = None) -> dict[str, Any]:
    """Writes the parameters of a step, and collections such as running statistics, under their names.

    Those of averaged parameters are averaged too.

    A safetensors file holds float32 and bfloat16 as they are; NumPy's format has no
    bfloat16, so an npz holds float32 in its place (exact). The arrays of an npz are
    written one by one; safetensors needs them all at once, and once.

    Args:
      directory: the folder of steps.
      step: which.
      out: ``*.safetensors`` or ``*.npz``; appears when it is whole.
      weights: averaged parameters or those of the last step; averaged ones where there are any by default.

    Returns:
      ``file, step, weights, arrays, parameters, bytes, digest``.

    Raises:
      UserError: an unknown suffix, no averages, a missing package, or a damaged checkpoint.
    """
    if out.suffix not in SUFFIXES:
        raise UserError(f'{out}: unknown format "{out.suffix}". Expected a name that ends in {" or ".join(SUFFIXES)}.')
    try:
        metadata, digests = store.read_metadata(directory, step)
        averaged = any(name.startswith("ema/") for name in digests)
        if weights == "ema" and not averaged:
            raise UserError(f"{directory / str(step)} holds no averages (optimizer.ema was None); leave --ema out.")
        root = weights or ("ema" if averaged else "params")
        names = warm_start.variables_of(digests, root)
        about = _about(metadata, digests, names, step, root)
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".{out.name}.tmp")
        try:
            arrays = ((names[name], array) for name, array in offline.arrays(directory, step, names))
            shapes = _npz(temporary, arrays, about) if out.suffix == ".npz" else _safetensors(temporary, arrays, about)
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)
    except store.Damaged as problem:
        raise UserError(
            f"Checkpoint {directory / str(step)} is damaged: {problem}. Name another with DIR@STEP."
        ) from problem
    return {
        "file": str(out),
        "step": step,
        "weights": root,
        "arrays": len(shapes),
        "parameters": sum(int(np.prod(digest.shape_of(digests[n])[0])) for n in names if n.startswith(f"{root}/")),
        "bytes": out.stat().st_size,
        "digest": about["digest"],
    }


def _about(
    metadata: Mapping[str, Any], digests: Mapping[str, str], names: Mapping[str, str], step: int, root: str
) -> dict[str, str]:
    """Metadata of the file, all of it text as safetensors wants."""
    return {
        "format": "vitax",
        "step": str(step),
        "weights": root,
        "name": metadata.get("name") or "",
        "recipe": json.dumps(metadata["recipe"]),
        "class_names": json.dumps(metadata.get("class_names")),
        "versions": json.dumps(metadata["versions"]),
        "digest": digest.combine({short: digests[name] for name, short in names.items()}),
        "state_digest": digest.combine(digests),
    }


def _safetensors(path: Path, arrays: Iterable[tuple[str, np.ndarray]], about: dict[str, str]) -> list[tuple[int, ...]]:
    try:
        from safetensors.numpy import save_file
    except ImportError:
        raise UserError(
            "Writing safetensors needs the package safetensors, of the extra `interop`: "
            "pip install -c constraints.txt -e '.[interop]'. An .npz needs nothing more."
        ) from None
    held = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays}
    save_file(held, path, about)
    return [array.shape for array in held.values()]


def _npz(path: Path, arrays: Iterable[tuple[str, np.ndarray]], about: dict[str, str]) -> list[tuple[int, ...]]:
    shapes = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in _entries(arrays, about):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
            if name != METADATA_ENTRY:
                shapes.append(array.shape)
    return shapes


def _entries(arrays: Iterable[tuple[str, np.ndarray]], about: dict[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    yield METADATA_ENTRY, np.array(json.dumps(about))
    for name, array in arrays:
        # NumPy writes bfloat16 as raw bytes of no type (big_vision#107).
        yield name, array.astype(np.float32) if array.dtype.name == "bfloat16" else array
