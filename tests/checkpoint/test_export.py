import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from tests.checkpoint.conftest import save, state_at
from vitax.checkpoint import digest, export, files, store
from vitax.core import tree
from vitax.core.errors import UserError

KERNEL = "encoder/block_00/kernel"


@pytest.mark.parametrize(("weights", "which"), [(None, "ema"), ("ema", "ema"), ("params", "params")])
def test_npz_holds_the_parameters_under_their_names(run, tmp_path, weights, which):
    row = export.export(run / "checkpoints", 2, tmp_path / "out" / "w.npz", weights)
    assert row["weights"] == which
    want = dict(tree.named_leaves(getattr(state_at(2), which)))
    with np.load(tmp_path / "out" / "w.npz") as file:
        assert set(file) == {*want, files.METADATA_ENTRY}
        np.testing.assert_array_equal(file[KERNEL], np.asarray(want[KERNEL]))
        assert file["bias"].dtype == np.float32  # NumPy has no bfloat16
        np.testing.assert_array_equal(file["bias"], np.asarray(want["bias"], np.float32))
        about = json.loads(str(file[files.METADATA_ENTRY]))
    assert about["step"] == "2"
    assert about["weights"] == which
    assert json.loads(about["recipe"]) == {"seed": 2}
    assert about["digest"] == row["digest"] == digest.combine(digest.manifest(getattr(state_at(2), which)))
    assert about["state_digest"] == digest.combine(digest.manifest(state_at(2)))
    assert not list((tmp_path / "out").glob(".*"))


def test_safetensors_holds_the_same_in_its_own_dtypes(run, tmp_path):
    safetensors = pytest.importorskip("safetensors", reason="the extra `interop` is not installed")
    export.export(run / "checkpoints", 1, tmp_path / "w.safetensors")
    with safetensors.safe_open(tmp_path / "w.safetensors", "np") as file:
        want = dict(tree.named_leaves(state_at(1).ema))
        assert set(file.keys()) == set(want)
        for name, array in want.items():
            assert file.get_tensor(name).dtype == array.dtype
            np.testing.assert_array_equal(file.get_tensor(name), np.asarray(array))
        assert file.metadata()["step"] == "1"
        assert json.loads(file.metadata()["recipe"]) == {"seed": 1}


def test_the_mean_of_the_last_steps_is_written(run, tmp_path):
    row = export.export(run / "checkpoints", 2, tmp_path / "mean.npz", "params", last=2)
    assert row["steps"] == [1, 2]
    want = [dict(tree.named_leaves(state_at(step).params)) for step in (1, 2)]
    with np.load(tmp_path / "mean.npz") as file:
        mean = (np.asarray(want[0][KERNEL], np.float64) + np.asarray(want[1][KERNEL], np.float64)) / 2
        np.testing.assert_array_equal(file[KERNEL], mean.astype(np.float32))
        assert json.loads(str(file[files.METADATA_ENTRY]))["mean_of_steps"] == "[1, 2]"
    with pytest.raises(UserError, match=r"--last 9: .* holds 2 checkpoint\(s\) up to step 2 \(1, 2\)"):
        export.export(run / "checkpoints", 2, tmp_path / "w.npz", last=9)


def test_without_averages_the_parameters_are_taken(tmp_path):
    folder = save(tmp_path / "plain", (1,), averages=False) / "checkpoints"
    assert export.export(folder, 1, tmp_path / "w.npz")["weights"] == "params"
    with pytest.raises(UserError, match="holds no averages .* leave --ema out"):
        export.export(folder, 1, tmp_path / "w.npz", "ema")


def test_a_missing_package_names_the_extra(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(UserError, match=r"the extra `interop`.*\[interop\]"):
        export.export(run / "checkpoints", 1, tmp_path / "w.safetensors")


def test_a_damaged_checkpoint_leaves_no_file(run, tmp_path, largest):
    path = largest(run / "checkpoints" / "2")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="is damaged"):
        export.export(run / "checkpoints", 2, tmp_path / "w.npz")
    assert not list(tmp_path.glob("*w.npz*"))


def test_another_suffix_is_an_error_that_names_both(run, tmp_path):
    with pytest.raises(UserError, match=r'unknown format ".pt".*safetensors or .npz'):
        export.export(run / "checkpoints", 2, tmp_path / "w.pt")


def test_what_was_exported_in_bfloat16_is_exact(run, tmp_path):
    export.export(run / "checkpoints", 1, tmp_path / "w.npz", "params")
    with np.load(tmp_path / "w.npz") as file:
        np.testing.assert_array_equal(jnp.asarray(file["bias"], jnp.bfloat16), state_at(1).params["bias"])


def test_metadata_is_read_before_anything_is_written(run, tmp_path):
    (run / "checkpoints" / "2" / "_CHECKPOINT_METADATA").write_text("{}")
    with pytest.raises(UserError, match="metadata unreadable"):
        export.export(run / "checkpoints", 2, tmp_path / "new" / "w.npz")
    assert not (tmp_path / "new").exists()
    assert store.steps_in(run / "checkpoints") == [1, 2]
