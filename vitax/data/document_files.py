"""Documents in files on disk: plain text, and JSON lines."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from vitax.core.errors import UserError, suggest

JSON_LINES = (".jsonl", ".jsonl.gz")
# What gzip files begin with.
GZIP = b"\x1f\x8b"


def is_text(name: str) -> bool:
    """Whether a file of a folder is read as text."""
    return name.endswith((".txt", ".gz")) and not name.endswith(JSON_LINES)


def is_json_lines(name: str) -> bool:
    """Whether a file of a folder is read as JSON lines."""
    return name.endswith(JSON_LINES)


def find(path: str, wanted: Any, expected: str, where: str = "data.source.path") -> list[Path]:
    """The file that a path names, or those of its folder, sorted.

    Args:
      path: file or folder.
      wanted: name -> whether a file of a folder counts; a file that is named counts always.
      expected: suffixes, for messages.
      where: what the path was given as.

    Raises:
      UserError: nothing there.
    """
    root = Path(path).expanduser()
    if root.is_file():
        return [root]
    found = sorted(p for p in root.rglob("*") if wanted(p.name) and p.is_file())
    if not found:
        what = f"holds no {expected} file" if root.is_dir() else "no such file or folder"
        raise UserError(f"{where}: {path}: {what}. Expected {expected}.")
    return found


def content(file: Traversable) -> bytes:
    """What a file holds, gzipped (whatever its name) or not.

    Raises:
      UserError: a damaged gzip file, or one that cannot be read.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error}).") from error
    try:
        return gzip.decompress(raw) if raw[:2] == GZIP or file.name.endswith(".gz") else raw
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: not a whole gzip file ({error}).") from error


def text(file: Traversable) -> str:
    """``content`` that is UTF-8, without the mark that some programs begin it with.

    Raises:
      UserError: another encoding.
    """
    try:
        return content(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}: not UTF-8 text ({error}). Convert it first: iconv -f latin1 -t utf-8 FILE."
        ) from error


def of_text(files: Sequence[Path], separator: str | None) -> Iterator[tuple[str, bytes]]:
    """The documents of text files, each with its place; a file is one where there is no ``separator``."""
    for file in files:
        for number, document in enumerate(split(content(file), separator), 1):
            yield str(file) if separator is None else f"{file}, document {number}", document


def split(text: bytes, separator: str | None) -> list[bytes]:
    """Text between the matches of a regular expression, what is blank left out."""
    if separator is None:
        return [text]
    try:
        return [part for part in re.split(separator.encode(), text) if part.strip()]
    except re.error as error:
        raise UserError(f"data.source.separator: {separator!r} is not a regular expression ({error}).") from error


def rows(files: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of JSON lines, each with its place (``FILE, line N``); blank lines are left out.

    Raises:
      UserError: a line that is no object, or a damaged gzip file.
    """
    for file in files:
        with file.open("rb") as begun:
            opened: Any = gzip.open if begun.read(2) == GZIP or file.suffix == ".gz" else open
        with opened(file, "rb") as stream:
            number = 0
            try:
                for number, line in enumerate(stream, 1):
                    if line.strip():
                        yield f"{file}, line {number}", _object(line, f"{file}, line {number}")
            except (OSError, EOFError, zlib.error) as error:
                raise UserError(f"{file}: not a whole gzip file, behind line {number} ({error}).") from error


def _object(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place}: is not JSON ({error}). Expected an object a line.") from error
    if not isinstance(row, dict):
        raise UserError(f'{place}: expected an object such as {{"text": "..."}}, got {type(row).__name__}.')
    return row


def text_of(row: dict[str, Any], place: str, field: str) -> bytes:
    """A field of an object as UTF-8.

    Raises:
      UserError: no such field, or no text in it.
    """
    if field not in row:
        raise UserError(f'{place}: has no field "{field}".{suggest(field, row)} It has: {", ".join(row) or "none"}.')
    if not isinstance(row[field], str):
        raise UserError(f'{place}: field "{field}" is {type(row[field]).__name__}; expected text.')
    try:
        return row[field].encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can hold
        raise UserError(f'{place}: field "{field}" holds half a character ({error}).') from error
