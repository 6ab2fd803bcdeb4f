import os
import subprocess
import sys
import time

import fsspec
import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from tests.checkpoint.conftest import save, state_at
from vitax.checkpoint import offline, seal, store, transfer
from vitax.checkpoint.store import Store
from vitax.core import tree
from vitax.core.errors import UserError


@pytest.fixture
def bucket():
    """A file system that has no atomic rename, in memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield "memory://bucket/run"
    system.store.clear()


def restore(workdir):
    here = SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), state_at(0))
    return Store(workdir / "checkpoints").restore(shapes)


def assert_is(workdir, step):
    state, _, found = restore(workdir)
    assert found == step
    for (name, x), y in zip(tree.named_leaves(state), jax.tree.leaves(state_at(step))):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=name)


def test_a_copy_of_a_folder_restores(run, tmp_path):
    rows = transfer.copy(str(run), str(tmp_path / "copy"))
    assert [(r["step"], r["copied"]) for r in rows] == [(1, True), (2, True)]
    assert_is(tmp_path / "copy", 2)
    assert (tmp_path / "copy" / "recipe.json").read_text() == "{}"
    for step in (1, 2):
        assert offline.problems(tmp_path / "copy" / "checkpoints", step) == []
    assert [r["copied"] for r in transfer.copy(str(run), str(tmp_path / "copy"))] == [False, False]


def test_one_step_alone_and_commit_markers_come_along(run, tmp_path):
    transfer.copy(f"{run}@1", str(tmp_path / "copy"))
    assert store.steps_in(tmp_path / "copy" / "checkpoints") == [1]
    names = {p.relative_to(run / "checkpoints" / "1") for p in (run / "checkpoints" / "1").rglob("*") if p.is_file()}
    there = tmp_path / "copy" / "checkpoints" / "1"
    assert {p.relative_to(there) for p in there.rglob("*") if p.is_file()} == names
    assert any(p.name == "commit_success.txt" for p in names)


def test_to_a_bucket_and_back(run, tmp_path, bucket):
    transfer.copy(str(run), bucket)
    rows = transfer.copy(f"{bucket}@2", str(tmp_path / "back"))
    assert rows[0]["copied"]
    assert_is(tmp_path / "back", 2)


class Cut(Exception):
    pass


def cut_after(monkeypatch, writes):
    """The process dies in the middle of write number ``writes``."""
    whole, done = transfer.Folder.write, [0]

    def write(self, name, chunks):
        done[0] += 1
        if done[0] <= writes:
            return whole(self, name, chunks)
        data = b"".join(chunks)
        whole(self, name, iter([data[: len(data) // 2]]))
        raise Cut

    monkeypatch.setattr(transfer.Folder, "write", write)


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_copy_that_is_cut_off_anywhere_is_never_taken_for_a_whole_one(run, tmp_path, bucket, monkeypatch, place):
    files = sum(p.is_file() for p in (run / "checkpoints" / "2").rglob("*"))
    for writes in range(files):
        target = bucket if place == "bucket" else str(tmp_path / "copy")
        with monkeypatch.context() as patch:
            cut_after(patch, writes)
            with pytest.raises(Cut):
                transfer.copy(f"{run}@2", target)
        if place == "folder":
            assert store.steps_in(tmp_path / "copy" / "checkpoints") == []
        else:
            with pytest.raises(UserError, match="no seal|damaged|no checkpoint"):
                transfer.copy(f"{bucket}@2", str(tmp_path / "back"))
            assert store.steps_in(tmp_path / "back" / "checkpoints") == []
    if place == "folder":
        transfer.copy(f"{run}@2", str(tmp_path / "copy"))
        assert_is(tmp_path / "copy", 2)
        assert os.listdir(tmp_path / "copy" / "checkpoints") == ["2"]


def test_a_bucket_copy_that_was_cut_off_is_written_over(run, tmp_path, bucket, monkeypatch):
    with monkeypatch.context() as patch:
        cut_after(patch, 5)
        with pytest.raises(Cut):
            transfer.copy(f"{run}@2", bucket)
    transfer.copy(f"{run}@2", bucket)
    transfer.copy(bucket, str(tmp_path / "back"))
    assert_is(tmp_path / "back", 2)


def test_the_seal_comes_last_and_the_commit_markers_before_it(run, tmp_path, monkeypatch):
    order = []
    whole = transfer.Folder.write
    monkeypatch.setattr(transfer.Folder, "write", lambda s, name, c: (order.append(name), whole(s, name, c)))
    transfer.copy(f"{run}@2", str(tmp_path / "copy"))
    order = [name for name in order if name not in transfer.BESIDE]
    assert order[-1] == seal.NAME
    assert order[-2] == "commit_success.txt"
    assert order[-3] == "state/commit_success.txt"
    assert order[-4] == "_CHECKPOINT_METADATA"


def test_a_process_killed_while_copying_leaves_no_step(run, tmp_path):
    target = tmp_path / "copy"
    script = (
        "import time; from vitax.checkpoint import transfer; whole = transfer.Folder.write\n"
        "def slow(self, name, chunks):\n    time.sleep(0.2); whole(self, name, chunks)\n"
        f"transfer.Folder.write = slow; transfer.copy({f'{run}@2'!r}, {str(target)!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    while process.poll() is None and not list(target.glob("checkpoints/*/*")):
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert [p.name for p in (target / "checkpoints").iterdir()] == ["2.vitax-copy-tmp"]
    assert restore(target) is None
    transfer.copy(f"{run}@2", str(target))
    assert_is(target, 2)


def test_a_damaged_source_is_named_and_nothing_counts_as_copied(run, tmp_path, bucket, largest, flip):
    flip(largest(run / "checkpoints" / "2"))
    for target in (str(tmp_path / "copy"), bucket):
        with pytest.raises(UserError, match=r"is damaged: file state/\S+ is not what was written"):
            transfer.copy(f"{run}@2", target)
    assert store.steps_in(tmp_path / "copy" / "checkpoints") == []
    largest(run / "checkpoints" / "2").unlink()
    with pytest.raises(UserError, match=r"is damaged: file state/\S+ is missing"):
        transfer.copy(f"{run}@2", str(tmp_path / "copy"))


def test_a_target_that_reads_otherwise_than_written_is_found(run, tmp_path, monkeypatch):
    whole = transfer.Folder.write

    def rotten(self, name, chunks):
        data = b"".join(chunks)
        whole(self, name, iter([data.replace(b"0", b"1") if name == "state/_METADATA" else data]))

    monkeypatch.setattr(transfer.Folder, "write", rotten)
    with pytest.raises(UserError, match="state/_METADATA: reads otherwise than it was written"):
        transfer.copy(f"{run}@2", str(tmp_path / "copy"))
    assert store.steps_in(tmp_path / "copy" / "checkpoints") == []


def test_a_step_without_a_seal_is_judged_by_its_arrays_and_sealed(run, tmp_path, largest):
    (run / "checkpoints" / "2" / seal.NAME).unlink()
    transfer.copy(f"{run}@2", str(tmp_path / "copy"))
    assert offline.problems(tmp_path / "copy" / "checkpoints", 2) == []
    assert (tmp_path / "copy" / "checkpoints" / "2" / seal.NAME).exists()
    data = largest(run / "checkpoints" / "2")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(UserError, match="is damaged"):
        transfer.copy(f"{run}@2", str(tmp_path / "other"))


def test_another_checkpoint_in_the_way_is_left_alone(run, tmp_path, bucket):
    other = save(tmp_path / "other", (2, 3))
    (other / "recipe.json").unlink()
    for target in (str(other), bucket):
        transfer.copy(f"{other}@3", bucket)
        if target == bucket:
            transfer.copy(f"{other}@2", bucket)
        with pytest.raises(UserError, match="is there already and is not the same checkpoint"):
            transfer.copy(f"{run}@2", target)
    assert_is(other, 3)


def test_runs_are_not_mixed(run, tmp_path):
    other = save(tmp_path / "other", (3,))
    (other / "recipe.json").write_text('{"seed": 1, "mesh": {"data": 2}}')
    with pytest.raises(UserError, match=r"holds a run of another recipe.*\(seed differ\)"):
        transfer.copy(str(run), str(other))
    (run / "recipe.json").write_text('{"seed": 1}')  # another mesh is the same run
    transfer.copy(str(run), str(other))
    assert '"mesh"' in (other / "recipe.json").read_text()  # it had got further
    transfer.copy(f"{other}@3", str(run))
    assert '"mesh"' in (run / "recipe.json").read_text()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "no checkpoint in"),
        ("run@7", r"no step 7. There are: 1, 2"),
        ("foo://x", "no such file system here: Protocol not known: foo"),
        ("memory://empty", "no checkpoint in memory://"),
    ],
)
def test_what_is_not_there_is_said(run, tmp_path, source, message):
    with pytest.raises(UserError, match=message):
        transfer.copy(source if "://" in source else str(tmp_path / source), str(tmp_path / "copy"))
