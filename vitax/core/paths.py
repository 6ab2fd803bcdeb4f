"""Folders on disk and on object stores: one type for both.

A local path is a ``pathlib.Path``. ``gs://bucket/folder`` is an ``etils.epath.Path``, which
speaks to the store through fsspec; ``pathlib`` would make a local folder ``gs:`` of it.
"""

import os
import re
from pathlib import Path
from typing import cast

from vitax.core.errors import UserError

# scheme -> the package that fsspec needs for it, and the extra that brings it
STORES = {"gs": ("gcsfs", "gcs")}


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is on an object store."""
    return "://" in os.fspath(path)


def check(text: str) -> None:
    """Refuses a scheme that is not supported.

    Raises:
      UserError: says which are.
    """
    scheme, sign, _ = text.partition("://")
    if not sign and re.match(r"(gs|s3|az|hf):", text):
        raise UserError(f"{text}: expected two slashes after {text.partition(':')[0]}: as in gs://bucket/folder.")
    if sign and scheme not in STORES:
        known = ", ".join(f"{s}://" for s in STORES)
        raise UserError(f"{text}: {scheme}:// is not supported; expected a local folder or {known}BUCKET/FOLDER.")


def parse(text: str | os.PathLike[str]) -> Path:
    """A path of either kind; ``~`` is expanded in local ones.

    Raises:
      UserError: a scheme that is not supported, or whose package is missing.
    """
    text = os.fspath(text)
    check(text)
    if not is_url(text):
        return Path(text).expanduser()
    scheme = text.partition("://")[0]
    import fsspec
    from etils import epath

    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        package, extra = STORES[scheme]
        raise UserError(f"{text}: needs {package}; install it with pip install -e '.[{extra}]'.") from error
    return cast(Path, epath.Path(text))
