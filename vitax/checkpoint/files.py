"""Weight files of other programs: names and memory-mapped arrays, never unpickled."""

import dataclasses
import json
import math
import mmap
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vitax.core import paths
from vitax.core.errors import UserError

SUFFIXES = (".safetensors", ".npz")
# An npz has no place for text about it, so it is an entry.
METADATA_ENTRY = "__metadata__"
# Where the parameters of a Google file may be; the first that is there counts.
ROOTS = ("params/img/", "params/", "opt/target/img/", "opt/target/")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack")
_CONVERTER = "python scripts/to_safetensors.py"
_SAFETENSORS_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """What a weight file holds.

    Attributes:
      path: of the file.
      arrays: name below ``root`` -> array, memory-mapped where the file allows it.
      root: prefix in the file of the names in ``arrays``.
      elsewhere: names outside of ``root``.
      metadata: text that the file carries.
      config: ``config.json`` beside the file ({} where there is none).
      preprocessor: ``preprocessor_config.json`` beside the file, likewise.
      tokenizer: ``tokenizer_config.json`` beside the file, likewise.
    """

    path: Path
    arrays: Mapping[str, np.ndarray]
    root: str = ""
    elsewhere: tuple[str, ...] = ()
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preprocessor: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tokenizer: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def split_spec(spec: str) -> tuple[str, str]:
    """``"siglip.npz:img"`` -> ``("siglip.npz", "img")``: a file and the part of it that is meant."""
    match = re.fullmatch(r"(.+\.(?:npz|safetensors)):([\w/.]+)", spec)
    return (match[1], match[2]) if match else (spec, "")


def is_weight_file(spec: str) -> bool:
    """Whether a ``--checkpoint`` names a weight file (or a folder with one) instead of a workdir."""
    name, _ = split_spec(spec)
    if paths.is_url(name):
        return name.endswith(SUFFIXES)
    path = Path(name).expanduser()
    return path.suffix in (*SUFFIXES, *_PICKLED, ".onnx") or path.is_file() or (path / "model.safetensors").is_file()


def read(spec: str) -> WeightFile:
    """Opens a weight file.

    Args:
      spec: ``FILE.npz``, ``FILE.safetensors``, a folder that holds ``model.safetensors``,
        any of these with ``:PART`` for the sub-tree ``PART/``, or ``PART.`` where
        names are torch's.

    Raises:
      UserError: no such file, another format, a broken or pickled one, or no such part.
    """
    name, part = split_spec(spec)
    if paths.is_url(name):
        raise UserError(f"{name}: weight files are read from disk alone; copy it here first.")
    path = Path(name).expanduser()
    path = path / "model.safetensors" if path.is_dir() else path
    if path.suffix in _PICKLED:
        raise UserError(
            f"{path}: {path.suffix} files are pickled code or another program's own format, and are never loaded. "
            f"Expected .safetensors or .npz; {_CONVERTER} {path} {path.stem}.safetensors makes one of a state dict, "
            "in torch safetensors.torch.save_file(model.state_dict(), FILE) does."
        )
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*") if p.suffix in SUFFIXES) if path.parent.is_dir() else []
        raise UserError(f"{path}: no such file.{' Beside it: ' + ', '.join(near[:5]) + '.' if near else ''}")
    if path.suffix not in SUFFIXES:
        mend = f" {_CONVERTER} {path} {path.stem}.safetensors makes one." if path.suffix == ".onnx" else ""
        raise UserError(
            f'{path}: unknown format "{path.suffix}". Expected a name that ends in .npz or .safetensors.{mend}'
        )
    try:
        arrays, metadata = _npz(path) if path.suffix == ".npz" else _safetensors(path)
    except (ValueError, OSError, KeyError, struct.error, zipfile.BadZipFile) as problem:
        raise UserError(f"{path}: broken or no {path.suffix} file: {problem}.") from problem
    root = _root(arrays, part, path)
    beside = {n: _json(path.parent / f"{n}.json") for n in ("config", "preprocessor_config", "tokenizer_config")}
    return WeightFile(
        path=path,
        arrays={n.removeprefix(root): x for n, x in arrays.items() if n.startswith(root)},
        root=root,
        elsewhere=tuple(n for n in arrays if not n.startswith(root)),
        metadata=metadata,
        config=beside["config"],
        preprocessor=beside["preprocessor_config"],
        tokenizer=beside["tokenizer_config"],
    )


def _root(arrays: Mapping[str, Any], part: str, path: Path) -> str:
    if part:
        for root in (f"params/{part}/", f"opt/target/{part}/", f"{part}/", f"{part}."):
            if any(name.startswith(root) for name in arrays):
                return root
        folders = sorted({re.split(r"[/.]", n.removeprefix("params/"))[0] for n in arrays if re.search(r"[/.]", n)})
        raise UserError(f"{path}:{part}: no such part in the file. There are: {', '.join(folders[:10])}.")
    return next((root for root in ROOTS if any(name.startswith(root) for name in arrays)), "")


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as problem:
        raise UserError(f"{path}: is no JSON ({problem}).") from problem


def _npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    arrays: dict[str, np.ndarray] = {}
    metadata: dict[str, str] = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            with archive.open(info) as file:
                shape, fortran, dtype = _npy_header(file, name)
                if name == METADATA_ENTRY:
                    file.seek(0)
                    metadata = json.loads(str(np.lib.format.read_array(file, allow_pickle=False)))
                    continue
                start = file.tell()
                if info.compress_type == zipfile.ZIP_STORED and 0 not in shape:
                    order: Any = "F" if fortran else "C"
                    at = _data_offset(path, info) + start
                    array: np.ndarray = np.memmap(path, dtype, "r", at, shape, order)
                else:
                    file.seek(0)
                    array = np.lib.format.read_array(file, allow_pickle=False)
            # NumPy knows no bfloat16 and gives the bytes back without a type (big_vision#107).
            arrays[name] = array.view(ml_dtypes.bfloat16) if array.dtype == np.dtype("V2") else array
    return arrays, metadata


def _npy_header(file: Any, name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds pickled Python objects, which are never loaded")
    return shape, fortran, dtype


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored entry begin: its own header may be longer than the directory's."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    return info.header_offset + 30 + name + extra


def _safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    # The format is a length, JSON and raw bytes: mapping it needs no package.
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        total = path.stat().st_size
        if length > total - 8:
            raise ValueError(f"a header of {length} bytes in a file of {total}")
        header = json.loads(file.read(length))
        raw = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)[8 + length :]
    metadata = header.pop(METADATA_ENTRY, {})
    arrays = {}
    for name, entry in header.items():
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            raise ValueError(f"{name} has dtype {entry['dtype']}; expected one of {', '.join(_SAFETENSORS_DTYPES)}")
        dtype = np.dtype(_SAFETENSORS_DTYPES[entry["dtype"]])
        begin, end = entry["data_offsets"]
        if not 0 <= begin <= end <= raw.size or end - begin != math.prod(entry["shape"]) * dtype.itemsize:
            raise ValueError(f"{name} lies outside of the file")
        # Bytes may lie unaligned for their type; NumPy copes.
        arrays[name] = np.ndarray(tuple(entry["shape"]), dtype, raw.data, begin)
    return arrays, metadata
