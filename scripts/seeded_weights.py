"""Random weights that any program draws alike, so that golden files need not hold them. NumPy alone.

The raw stream of PCG64 is fixed by NumPy's compatibility policy; distributions are not.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

# Name of an array -> its type (of safetensors) and shape.
Names = Mapping[str, tuple[str, tuple[int, ...]]]
_SCALE = np.sqrt(12.0)


def uniform(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """float64 of mean 0 and variance 1, by the name: the order of names does not matter."""
    count = int(np.prod(shape, dtype=np.int64))
    raw = np.random.PCG64([seed, zlib.crc32(name.encode())]).random_raw(count)
    return (((raw >> np.uint64(40)) / 2.0**24 - 0.5) * _SCALE).reshape(shape)


def draw(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """float32 of the size that keeps activations near 1; scales and variances are positive.

    Kernels are not centred, which standardisation has to mend. HWIO kernels of Google's
    files are told from OIHW by their slashes.
    """
    noise = uniform(name, shape, seed)
    if name.endswith("running_var"):
        value = np.exp(0.3 * noise)
    elif len(shape) > 1 and name.endswith(("weight", "kernel")):
        fan_in = np.prod(shape[:-1] if "/" in name else shape[1:])
        value = (noise + 0.3 * (len(shape) == 4)) / np.sqrt(fan_in)
    elif name.endswith(("scale", "gamma")) or ("weight" in name and len(shape) == 1):
        value = 1.0 + 0.2 * noise
    else:
        value = (0.2 if len(shape) == 1 else 1.0) * noise
    return value.astype(np.float32)


def fill(names: Names, seed: int = 0) -> dict[str, np.ndarray]:
    """An array for every name; counters of steps are 7."""
    return {
        name: draw(name, tuple(shape), seed) if dtype == "F32" else np.full(tuple(shape), 7, np.int64)
        for name, (dtype, shape) in names.items()
    }


def header(path: Path) -> Names:
    """What a safetensors file holds."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entries = json.loads(file.read(length))
    return {n: (e["dtype"], tuple(e["shape"])) for n, e in sorted(entries.items()) if n != "__metadata__"}


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A safetensors file, or an npz by its suffix."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
        return
    entries, end = {}, 0
    for name, array in arrays.items():
        dtype = {"float32": "F32", "int64": "I64"}[array.dtype.name]
        entries[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": (end, end := end + array.nbytes)}
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).tobytes())
