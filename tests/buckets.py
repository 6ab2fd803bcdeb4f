"""``gs://`` on a local folder: what fsspec and TensorStore would ask of the store, asked of the disk.

fsspec's file system for the scheme is its own ``DirFileSystem``; Orbax asks TensorStore for its
``file`` driver in place of ``gcs``, and nobody for the namespace of the bucket. All else, paths,
commit markers, metrics and reports, is what runs against a real bucket. ``python -m tests.buckets``
is ``vitax`` with that in place; FAKE_BUCKETS names the folder.
"""

import os
import sys

import fsspec
from fsspec.implementations.dirfs import DirFileSystem


class Buckets(DirFileSystem):
    """Buckets as sub-folders of FAKE_BUCKETS."""

    protocol = ("gs", "gcs")

    def __init__(self, **_):
        super().__init__(path=os.environ["FAKE_BUCKETS"], fs=fsspec.filesystem("file", auto_mkdir=True))

    @classmethod
    def _strip_protocol(cls, path):
        return path.split("://", 1)[-1]

    def _join(self, path):
        return super()._join(
            [self._strip_protocol(p) for p in path] if isinstance(path, list | tuple) else self._strip_protocol(path)
        )


def install():
    """Puts the stand-ins in place, in this process."""
    from etils import epath
    from orbax.checkpoint._src.path import gcs_utils

    for name in Buckets.protocol:
        fsspec.register_implementation(name, Buckets, clobber=True)
    root = os.environ["FAKE_BUCKETS"]
    gcs_utils.get_kvstore_for_gcs = lambda p: {"driver": "file", "path": os.path.join(root, p.removeprefix("gs://"))}
    gcs_utils.is_hierarchical_namespace_enabled = lambda p: False
    gcs_utils.rmtree = lambda p, missing_ok=False: epath.Path(p).rmtree(missing_ok=missing_ok)


if __name__ == "__main__":
    from vitax.__main__ import main

    install()
    sys.exit(main())
