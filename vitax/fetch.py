"""``vitax fetch``: a published file into the local cache: resumable, checked, never half there.

A download lies as ``FILE.part`` until it is whole and its checksum is that which the server
states (SHA-256 on the hub, MD5 in Google's buckets); ``FILE.json`` beside it keeps the
SHA-256, against which the file is checked again when it is asked for.
"""

import base64
import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from typing import Any

from vitax.core.environment import weight_cache
from vitax.core.errors import RunError, UserError
from vitax.weights.addresses import Remote, locate

_CHUNK_BYTES = 1 << 20
_TIMEOUT = 30.0
_RETRIES = 3

Progress = Callable[[str, int, int | None], None]


def fetch(name: str, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """The local path of a published weight file, brought if it is not there.

    Args:
      name: see ``weights.addresses.GRAMMAR``.
      cache: folder for files; ``VITAX_WEIGHTS``, else below the user's cache folder.
      progress: called with (file, bytes so far, bytes in all or None).

    Raises:
      UserError: an unknown name, or no such file there.
      RunError: not reachable, or not what the server says it is; says what was tried.
    """
    remotes = locate(name)
    folder = (cache or weight_cache(os.environ)) / name.removesuffix(".npz").replace("/", "--")
    for remote in remotes:
        target = folder / remote.file
        if target.is_file() and _unchanged(target):
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _download(remote.url, target, progress)
        except urllib.error.HTTPError as error:
            if not remote.required and error.code == 404:
                continue
            raise _refused(name, remote, error) from error
        except (OSError, HTTPException) as error:
            raise RunError(_unreachable(name, remotes, target, error)) from error
    return folder / remotes[0].file


def _refused(name: str, remote: Remote, error: urllib.error.HTTPError) -> Exception:
    if error.code in (401, 403, 404):
        what = "there is no such file" if error.code == 404 else "the server gives it to nobody without a login"
        return UserError(f"fetch {name}: {what}: {remote.url} (HTTP {error.code}).")
    return RunError(f"fetch {name}: the server said HTTP {error.code} ({error.reason}): {remote.url}. Try again later.")


def _unreachable(name: str, remotes: list[Remote], target: Path, error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    part = _part(target)
    kept = f"\n{part.stat().st_size:,} bytes are kept; the same command goes on from there." if part.is_file() else ""
    tried = "\n".join(f"  {remote.url}" for remote in remotes)
    return (
        f"fetch {name}: could not bring {target.name} ({reason}). Tried:\n{tried}\n"
        f"Without a network, bring it another way and put it at\n  {target}\n"
        f"or give its own path as --checkpoint.{kept}"
    )


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _note(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _unchanged(target: Path) -> bool:
    """Whether a file in the cache is still what was brought; one put there by hand is taken as it is."""
    try:
        note = json.loads(_note(target).read_text())
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return target.stat().st_size == note["bytes"] and _digests(target)["sha256"].hexdigest() == note["sha256"]


def _digests(path: Path) -> dict[str, Any]:
    """SHA-256 and MD5 of what a file holds, to be gone on with."""
    digests: dict[str, Any] = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    if path.is_file():
        with path.open("rb") as file:
            while block := file.read(_CHUNK_BYTES):
                for digest in digests.values():
                    digest.update(block)
    return digests


class _Remembering(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and keeps their headers: the hub states the checksum there alone."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self.headers |= {k.lower(): v for k, v in headers.items()}
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, target: Path, progress: Progress | None) -> None:
    part, state = _part(target), target.with_name(f"{target.name}.part.json")
    for attempt in range(_RETRIES):
        try:
            headers = _transfer(url, part, state, progress, target.name)
            break
        except (IncompleteRead, TimeoutError, ConnectionError):
            if attempt + 1 == _RETRIES:
                raise
    digests = _digests(part)
    problem = _mismatch(headers, digests, part.stat().st_size)
    if problem:
        part.unlink()
        state.unlink(missing_ok=True)
        raise RunError(f"fetch: {url} arrived damaged ({problem}) and was thrown away. Run the same command again.")
    note = {"url": url, "bytes": part.stat().st_size, "sha256": digests["sha256"].hexdigest()}
    _note(target).write_text(json.dumps(note, indent=1))
    part.rename(target)
    state.unlink(missing_ok=True)


def _transfer(url: str, part: Path, state: Path, progress: Progress | None, file: str) -> dict[str, str]:
    """Appends to the part what it lacks; returns the headers, lower case."""
    have = part.stat().st_size if part.is_file() else 0
    tag = json.loads(state.read_text()).get("etag") if have and state.is_file() else None
    request = urllib.request.Request(url, headers={"User-Agent": "vitax"})
    if have and tag:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag)  # another file since then is sent whole
    redirects = _Remembering()
    try:
        response = urllib.request.build_opener(redirects).open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send
            return redirects.headers | {k.lower(): v for k, v in error.headers.items() if k.lower() != "content-length"}
        raise
    with response:
        headers = redirects.headers | {k.lower(): v for k, v in response.headers.items()}
        going_on = response.status == 206
        have = have if going_on else 0
        left = response.headers.get("Content-Length")
        total = have + int(left) if left else None
        if headers.get("etag"):
            state.write_text(json.dumps({"etag": headers["etag"]}))
        with part.open("ab" if going_on else "wb") as out:
            while block := response.read(_CHUNK_BYTES):
                out.write(block)
                have += len(block)
                if progress:
                    progress(file, have, total)
        if total is not None and have != total:
            raise IncompleteRead(b"", total - have)
        return headers | {"bytes-in-all": str(total)} if total is not None else headers


def _mismatch(headers: Mapping[str, str], digests: Mapping[str, Any], size: int) -> str | None:
    """What a file is not, of what the server states about it."""
    stated = headers.get("bytes-in-all") or headers.get("x-linked-size")
    if stated and int(stated) != size:
        return f"{size:,} bytes in place of {int(stated):,}"
    linked = headers.get("x-linked-etag", "").strip('W/"')
    if len(linked) == 64 and linked != digests["sha256"].hexdigest():
        return "another SHA-256 than the server states"
    for item in headers.get("x-goog-hash", "").split(","):
        kind, _, value = item.strip().partition("=")
        if kind == "md5" and value != base64.b64encode(digests["md5"].digest()).decode():
            return "another MD5 than the server states"
    return None
