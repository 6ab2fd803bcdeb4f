"""Writes weight files: safetensors or NumPy's npz, which appear when they are whole."""

import importlib.util
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from vitax.checkpoint.files import METADATA_ENTRY, SUFFIXES
from vitax.core.errors import UserError

Named = Iterable[tuple[str, np.ndarray]]


def check(out: Path) -> None:
    """Refuses a file that cannot be written.

    Raises:
      UserError: a name of no known format, or a package that is missing.
    """
    if out.suffix not in SUFFIXES:
        raise UserError(f'{out}: unknown format "{out.suffix}". Expected a name that ends in {" or ".join(SUFFIXES)}.')
    if out.suffix == ".safetensors" and importlib.util.find_spec("safetensors") is None:
        raise UserError(
            "Writing safetensors needs the package safetensors, of the extra `interop`: "
            "pip install -c constraints.txt -e '.[interop]'. An .npz needs nothing more."
        )


def write(out: Path, arrays: Named, about: Mapping[str, str]) -> list[tuple[int, ...]]:
    """Writes arrays and text about them.

    Args:
      out: ``*.safetensors`` or ``*.npz``.
      arrays: (name, array), taken one by one; safetensors needs them all at once, and once.
      about: metadata; {} leaves an npz without any.

    Returns:
      The shapes written.

    Raises:
      UserError: an unknown suffix or a missing package.
    """
    check(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        shapes = _npz(temporary, arrays, about) if out.suffix == ".npz" else _safetensors(temporary, arrays, about)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return shapes


def _safetensors(path: Path, arrays: Named, about: Mapping[str, str]) -> list[tuple[int, ...]]:
    from safetensors.numpy import save_file

    held = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays}
    save_file(held, path, dict(about))
    return [array.shape for array in held.values()]


def _npz(path: Path, arrays: Named, about: Mapping[str, str]) -> list[tuple[int, ...]]:
    shapes = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in _entries(arrays, about):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
            if name != METADATA_ENTRY:
                shapes.append(array.shape)
    return shapes


def _entries(arrays: Named, about: Mapping[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    if about:
        yield METADATA_ENTRY, np.array(json.dumps(about))
    for name, array in arrays:
        # NumPy writes bfloat16 as raw bytes of no type (big_vision#107).
        yield name, array.astype(np.float32) if array.dtype.name == "bfloat16" else array
