"""A seal: the SHA-256 of every file of a finished checkpoint.

The digests of the arrays say whether the values are right. The seal also finds
damage that no value shows yet (an index, a sharding file), so that a disk going bad
is named at the first restart. It is written after the checkpoint is whole; one that
was killed before has no seal and is judged by its arrays alone.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from vitax.core import paths

NAME = "files.json"


def hashes(folder: Path) -> dict[str, str]:
    """file -> SHA-256 of all files of a folder but the seal."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(NAME):
            with path.open("rb") as file:
                found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def pack(files: Mapping[str, str]) -> str:
    """The content of a seal, for file -> SHA-256."""
    text = json.dumps(files, indent=0, sort_keys=True)
    return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "files": text})


def unpack(content: str | bytes) -> dict[str, str]:
    """file -> SHA-256 of a seal.

    Raises:
      ValueError: it is not what ``pack`` wrote; the message says how.
    """
    try:
        packed = json.loads(content)
        text = packed["files"]
        if hashlib.sha256(text.encode()).hexdigest() == packed["sha256"]:
            return json.loads(text)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{NAME} is unreadable ({type(error).__name__})") from error
    raise ValueError(f"{NAME} is not what was written")


def write(folder: Path) -> None:
    """Seals a finished checkpoint folder; not on an object store, which keeps checksums of its own."""
    if paths.is_url(folder):
        return
    temporary = folder / f"{NAME}.tmp"
    temporary.write_text(pack(hashes(folder)))
    temporary.replace(folder / NAME)


def problems(folder: Path) -> list[str]:
    """All that is wrong with a sealed folder, a line a file; [] if nothing, or no seal."""
    try:
        sealed = unpack((folder / NAME).read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        return [str(error)]
    there = hashes(folder)
    return [
        f"file {name} is {'not what was written' if name in there else 'missing'}"
        for name in sealed
        if there.get(name) != sealed[name]
    ]


def check(folder: Path) -> str:
    """What is wrong with a sealed folder: the first file and how; "" if nothing, or no seal."""
    return next(iter(problems(folder)), "")
