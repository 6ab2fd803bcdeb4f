"""A seal: the SHA-256 of every file of a finished checkpoint.

The digests of the arrays say whether the values are right. The seal also finds
damage that no value shows yet (an index, a sharding file), so that a disk going bad
is named at the first restart. It is written after the checkpoint is whole; one that
was killed before has no seal and is judged by its arrays alone.
"""

import hashlib
import json
from pathlib import Path

from vitax.core import paths

NAME = "files.json"


def _hashes(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(NAME):
            with path.open("rb") as file:
                found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def write(folder: Path) -> None:
    """Seals a finished checkpoint folder; not on an object store, which keeps checksums of its own."""
    if paths.is_url(folder):
        return
    text = json.dumps(_hashes(folder), indent=0, sort_keys=True)
    content = json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "files": text})
    temporary = folder / f"{NAME}.tmp"
    temporary.write_text(content)
    temporary.replace(folder / NAME)


def check(folder: Path) -> str:
    """What is wrong with a sealed folder: the file and how; "" if nothing, or no seal."""
    try:
        content = json.loads((folder / NAME).read_text())
        text = content["files"]
        if hashlib.sha256(text.encode()).hexdigest() != content["sha256"]:
            return f"{NAME} is not what was written"
        sealed = json.loads(text)
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError) as error:
        return f"{NAME} is unreadable ({type(error).__name__})"
    there = _hashes(folder)
    for name in sealed:
        if name not in there:
            return f"file {name} is missing"
        if there[name] != sealed[name]:
            return f"file {name} is not what was written"
    return ""
