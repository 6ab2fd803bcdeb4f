"""Token ids on disk: long text is tokenised once, and its ids are mapped, not held in memory."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger("vitax")

# Of files here: another number where what is in them changes.
FORMAT = 1
_CHUNK = 1 << 24


def key_of(documents: Iterable[bytes], tokenizer: Any, engine_version: str) -> tuple[str, int]:
    """What the ids of documents depend on, as 32 hex digits, and the bytes of all documents."""
    about = [FORMAT, tokenizer.fingerprint(), engine_version]
    summed, size = hashlib.blake2b(json.dumps(about).encode(), digest_size=16), 0
    for text in documents:
        summed.update(len(text).to_bytes(8, "little") + text)
        size += len(text)
    return summed.hexdigest(), size


def kept(folder: Path, key: str, dtype: np.dtype, make: Callable[[], Iterator[np.ndarray]]) -> np.ndarray:
    """The ids that ``make`` gives in parts: memory-mapped from the folder, made where they are not there.

    A file is named after the key and after a digest of its content, which is looked at when
    it is opened: one that was damaged is made again, and none is ever stale.

    Args:
      folder: made where it does not exist; its files may be deleted at any time.
      key: of ``key_of``.
      dtype: of the ids.
      make: the parts, in order.
    """
    for path in folder.glob(f"{key}-*.{dtype}"):
        found = np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)
        if path.stem.rpartition("-")[2] == digest(found):
            return found
        log.warning("%s is damaged; the text is tokenised again.", path)
        path.unlink(missing_ok=True)
    try:
        return np.memmap(_written(folder, key, dtype, make), dtype, "r")
    except OSError as error:  # no right to write there, or the disk is full
        log.warning("%s cannot be written (%s); token ids stay in memory. VITAX_TOKENS names another.", folder, error)
        return np.concatenate(list(make()))


def _written(folder: Path, key: str, dtype: np.dtype, make: Callable[[], Iterator[np.ndarray]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    summed = hashlib.blake2b(digest_size=8)
    file: Any = tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp", delete=False)  # noqa: SIM115
    try:
        with file:
            for part in make():
                content = part.astype(dtype, copy=False).tobytes()
                summed.update(content)
                file.write(content)
        os.chmod(file.name, 0o644)  # others may share the folder
        path = folder / f"{key}-{summed.hexdigest()}.{dtype}"
        os.replace(file.name, path)
    except BaseException:
        os.unlink(file.name)
        raise
    return path


def digest(ids: np.ndarray) -> str:
    """16 hex digits over the bytes of ids, a chunk at a time."""
    summed = hashlib.blake2b(digest_size=8)
    for start in range(0, len(ids), _CHUNK):
        summed.update(np.ascontiguousarray(ids[start : start + _CHUNK]).tobytes())
    return summed.hexdigest()
