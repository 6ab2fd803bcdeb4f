"""Opens every file once, before a run does: which cannot be read, which are the same."""

import collections
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from vitax.core.errors import UserError
from vitax.data import image_files

# Files in flight: keeps the memory of a large folder small and stops soon after Ctrl-C.
_CHUNK = 512


class Survey(NamedTuple):
    """What is in the files.

    Attributes:
      unreadable: (name, reason), in the order of the names.
      digests: name -> hash of the content, of all files that could be opened.
    """

    unreadable: tuple[tuple[str, str], ...]
    digests: dict[str, bytes]


def survey(
    root: pathlib.Path, names: Sequence[str], progress: Callable[[int], None] | None = None, threads: int | None = None
) -> Survey:
    """Reads and checks files, each once, side by side.

    Args:
      root: what the names are relative to.
      names: of the files.
      progress: called with the number of files done so far, now and then.
      threads: twice the cores if left out: half of them wait for the disk.
    """
    threads = threads or 2 * len(os.sched_getaffinity(0))
    unreadable, digests = [], {}
    with ThreadPoolExecutor(threads, thread_name_prefix="survey") as pool:
        for start in range(0, len(names), _CHUNK):
            chunk = names[start : start + _CHUNK]
            for name, (reason, digest) in zip(chunk, pool.map(lambda n: check_file(root / n), chunk)):
                if reason is not None:
                    unreadable.append((name, reason))
                if digest is not None:
                    digests[name] = digest
            if progress is not None:
                progress(start + len(chunk))
    return Survey(tuple(unreadable), digests)


def check_file(path: pathlib.Path) -> tuple[str | None, bytes | None]:
    """Why a file is no image that can be trained on (None = it is one), and the hash of its content."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"cannot be read ({error.strerror})", None
    digest = hashlib.blake2b(data, digest_size=16).digest()
    if not data:
        return "empty file", digest
    try:
        check(data)
    except UserError as error:
        return str(error).rstrip("."), digest
    return None, digest


def check(data: bytes) -> None:
    """Raises UserError where ``decode_image`` would.

    A JPEG is decoded at an eighth of its size: all of the file is read, which is what
    finds a truncated one, for two thirds of the time.
    """
    header = image_files.jpeg_header(data)
    if header is not None and header.components in (1, 3):
        import simplejpeg

        try:
            simplejpeg.decode_jpeg(data, colorspace="GRAY", min_height=1, min_width=1)
            return
        except ValueError:
            pass  # decode_image asks PIL next, and so does this
    image_files.decode_image(data)


def twins(digests: Iterable[tuple[str, bytes]]) -> list[list[str]]:
    """Groups of names with the same content, in the order of their first."""
    groups = collections.defaultdict(list)
    for name, digest in digests:
        groups[digest].append(name)
    return [names for names in groups.values() if len(names) > 1]
