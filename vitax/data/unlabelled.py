"""Images without labels: every image file below a folder."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from typing import Any

from vitax.core.errors import UserError
from vitax.data.folder import SUFFIXES


@dataclasses.dataclass(frozen=True)
class Unlabelled:
    """JPEG, PNG and WebP files anywhere below a folder, for a teacher to label.

    Every label is 0 and means nothing.

    Attributes:
      path: the folder; ``~`` and paths relative to the working directory work.
    """

    path: str

    class_names = None

    @functools.cached_property
    def _root(self) -> pathlib.Path:
        return pathlib.Path(self.path).expanduser()

    @functools.cached_property
    def _names(self) -> list[str]:
        if not self._root.is_dir():
            raise UserError(f"unlabelled: no folder {self.path} (looked from {os.getcwd()}).")
        found = [p.relative_to(self._root).as_posix() for p in self._root.rglob("*") if p.suffix.lower() in SUFFIXES]
        if not found:
            raise UserError(f"unlabelled: no images ({', '.join(SUFFIXES)}) below {self.path}.")
        return sorted(found)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            return {"image": (self._root / self._names[index]).read_bytes(), "label": 0}
        except OSError as error:
            raise UserError(f"unlabelled: cannot read {self.describe(index)} ({error.strerror}).") from error

    def describe(self, index: int) -> str:
        return str(self._root / self._names[index])

    def fingerprint(self) -> dict[str, Any]:
        digest = hashlib.blake2b("\n".join(self._names).encode(errors="surrogateescape"), digest_size=8).hexdigest()
        return {"kind": "unlabelled", "num_examples": len(self), "names_digest": digest}
