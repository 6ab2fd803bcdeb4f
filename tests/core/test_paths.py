"""Local paths stay pathlib's; buckets are etils' paths; nothing becomes a folder named gs:."""

import json
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from vitax.core import paths
from vitax.core.errors import UserError
from vitax.train import workdir


class Memory(MemoryFileSystem):
    """Buckets in memory, apart from other tests' files."""

    protocol = ("gs", "gcs")
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.split("://", 1)[-1].strip("/") if path.strip("/") else ""


@pytest.fixture
def buckets(monkeypatch):
    from etils.epath import backend
    from fsspec.registry import _registry

    for name in Memory.protocol:
        monkeypatch.setitem(_registry, name, Memory)
    backend.fsspec_backend._get_filesystem.cache_clear()
    Memory.store.clear()
    yield
    backend.fsspec_backend._get_filesystem.cache_clear()


def test_local_paths_are_pathlibs():
    assert type(paths.parse("runs/a")) is type(Path())
    assert paths.parse("~/a") == Path.home() / "a"
    assert not paths.is_url("runs/a:b")


def test_a_bucket_is_no_folder_named_gs(buckets):
    path = paths.parse("gs://bucket/run") / "metrics.jsonl"
    assert str(path) == "gs://bucket/run/metrics.jsonl"
    assert paths.is_url(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gs:/bucket/run", "expected two slashes after gs:"),
        ("s3://bucket/run", "s3:// is not supported; expected a local folder or gs://BUCKET/FOLDER"),
        ("ftp://host/run", "ftp:// is not supported"),
    ],
)
def test_what_cannot_be_written_to_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        paths.parse(text)


def test_without_its_package_a_scheme_names_the_extra(monkeypatch):
    def missing(scheme):
        raise ImportError(scheme)

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(UserError, match=r"needs gcsfs; install it with pip install -e '\.\[gcs\]'"):
        paths.parse("gs://bucket/run")


def test_metrics_in_a_bucket_are_there_by_the_next_checkpoint_and_cut_back_on_resume(buckets):
    run = paths.parse("gs://bucket/run")
    workdir.write_json(run / "ledger.json", {"a": 1})
    assert workdir.read_json(run / "ledger.json") == {"a": 1}
    assert workdir.read_json(run / "none.json") is None
    log = workdir.MetricsLog(run, 0)
    for step in (1, 2, 3):
        log.write(step, {"loss": step})
    log.flush()  # as before a checkpoint; then killed
    assert [r["step"] for r in workdir.read_rows(run / "metrics.jsonl")] == [1, 2, 3]
    log = workdir.MetricsLog(run, 2)
    log.write(3, {"loss": 30})
    log.close()
    text = (run / "metrics.jsonl").read_text()
    assert [json.loads(line)["loss"] for line in text.splitlines()] == [1, 2, 30]
    assert list((run / "tensorboard").iterdir())


def test_images_in_a_bucket_are_listed_and_read_as_in_a_folder(buckets, tmp_path):
    from vitax.data.folder import Folder

    names = ["train/b/2.jpg", "train/a/deep/1.PNG", "train/a/0.webp", "train/a/notes.txt", "train/.c/1.jpg"]
    for root in (tmp_path, paths.parse("gs://bucket/images")):
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(name.encode())
    local, remote = Folder(str(tmp_path), "train"), Folder("gs://bucket/images", "train")
    assert remote.class_names == ("a", "b")
    assert len(remote) == 3
    assert remote.fingerprint() == local.fingerprint()
    assert [remote[i] for i in range(3)] == [local[i] for i in range(3)]
    assert remote.describe(0) == "gs://bucket/images/train/a/0.webp"
