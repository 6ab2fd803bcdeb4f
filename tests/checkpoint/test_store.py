import logging
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from vitax.checkpoint import store
from vitax.checkpoint.store import Store
from vitax.core import tree
from vitax.core.errors import RunError, UserError
from vitax.core.types import TrainState
from vitax.parallel.mesh import MeshSpec, build_mesh


def state_at(step):
    rng = np.random.default_rng(step)
    params = {
        "encoder": {"block_00": {"kernel": rng.normal(size=(64, 32)).astype(np.float32)}},
        "bias": jnp.asarray(rng.normal(size=8), jnp.bfloat16),
    }
    params = jax.tree.map(jnp.asarray, params)
    return TrainState(jnp.int32(step), params, {}, ({"mu": params, "count": jnp.int32(step)}, ()), params)


def abstract(state, sharding=None):
    sharding = sharding or SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


def saved(path, steps=(1, 2, 3), keep=3):
    target = Store(path, keep=keep)
    for step in steps:
        target.save(step, state_at(step), {"recipe": {"seed": step}})
    target.close()
    return path


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (name, x), y in zip(tree.named_leaves(a), jax.tree.leaves(b)):
        assert x.dtype == y.dtype, name
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=name)


def test_round_trip_keeps_bits_structure_and_metadata(tmp_path):
    state, metadata, step = Store(saved(tmp_path)).restore(abstract(state_at(0)))
    assert step == 3
    assert metadata == {"recipe": {"seed": 3}}
    assert_equal(state, state_at(3))


def test_empty_folder_restores_nothing(tmp_path):
    assert Store(tmp_path / "new").restore(abstract(state_at(0))) is None


def test_keeps_the_newest(tmp_path):
    assert store.steps_in(saved(tmp_path, range(1, 7), keep=2)) == [5, 6]


def test_saved_on_one_mesh_restored_on_another(tmp_path):
    big = build_mesh(MeshSpec(data=2, fsdp=4))
    spread = jax.tree.map(lambda x: jax.device_put(x, NamedSharding(big, P("fsdp") if x.ndim else P())), state_at(1))
    target = Store(tmp_path)
    target.save(1, spread, {})
    target.close()
    small = build_mesh(MeshSpec(), jax.devices()[:2])
    state, _, _ = Store(tmp_path).restore(abstract(state_at(0), NamedSharding(small, P())))
    assert_equal(state, state_at(1))


def test_a_sub_tree_can_be_loaded_alone(tmp_path):
    want = {f"params/{n}": x for n, x in tree.named_leaves(abstract(state_at(0)).params)}
    got = store.load(saved(tmp_path), 2, want)
    np.testing.assert_array_equal(got["params/bias"], state_at(2).params["bias"])


@pytest.mark.parametrize("change", ["missing", "shape", "dtype"])
def test_another_model_is_an_error_that_prints_both_sides(tmp_path, change):
    want = abstract(state_at(0))
    if change == "missing":
        want.params["extra"] = want.params["bias"]
    elif change == "shape":
        want.params["bias"] = jax.ShapeDtypeStruct((9,), jnp.bfloat16, sharding=want.step.sharding)
    else:
        want.params["bias"] = jax.ShapeDtypeStruct((8,), jnp.float32, sharding=want.step.sharding)
    pattern = {
        "missing": "missing     params/extra",
        "shape": r"bfloat16\[9\], found bfloat16\[8\]",
        "dtype": "float32",
    }
    with pytest.raises(UserError, match=pattern[change]):
        Store(saved(tmp_path)).restore(want)


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def damage(folder, how, rng):
    if how == "metadata":
        path = folder / "_CHECKPOINT_METADATA"
        path.write_text(path.read_text().replace('\\"seed\\": 3', '\\"seed\\": 4'))
        return
    path = largest_file(folder / "state")
    raw = bytearray(path.read_bytes())
    if how == "flip":
        bit = int(rng.integers(0, 8 * len(raw)))
        raw[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bytes(raw))
    elif how == "truncate":
        path.write_bytes(bytes(raw[: len(raw) // 2]))
    elif how == "delete":
        path.unlink()


@pytest.mark.parametrize("how", ["flip", "truncate", "delete", "metadata"])
def test_a_damaged_step_is_named_set_aside_and_the_one_before_used(tmp_path, caplog, how):
    damage(saved(tmp_path) / "3", how, np.random.default_rng(0))
    with caplog.at_level(logging.WARNING, "vitax"):
        target = Store(tmp_path)
        state, _, step = target.restore(abstract(state_at(0)))
    assert step == 2
    assert_equal(state, state_at(2))
    assert f"{tmp_path / '3'} is damaged" in caplog.text
    assert (tmp_path / "3.damaged").is_dir()
    target.save(3, state_at(3), {})
    target.close()
    assert store.steps_in(tmp_path) == [1, 2, 3]


def test_random_bit_flips_in_the_arrays_are_all_found(tmp_path):
    rng = np.random.default_rng(1)
    folder = saved(tmp_path, (1,))
    path = largest_file(folder / "1" / "state")
    good = path.read_bytes()
    for _ in range(20):
        damage(folder / "1", "flip", rng)
        with pytest.raises(store.Damaged):
            store.load(folder, 1, abstract(state_at(0)))
        path.write_bytes(good)
    assert_equal(store.load(folder, 1, abstract(state_at(0))), state_at(1))


def test_one_bit_flipped_in_any_file_is_found_and_the_step_before_used(tmp_path):
    rng = np.random.default_rng(2)
    saved(tmp_path)
    files = [p for p in (tmp_path / "3").rglob("*") if p.is_file() and p.stat().st_size]
    assert len(files) > 5
    for path in [*files, *rng.choice(np.array(files, object), 10)]:
        good = path.read_bytes()
        raw, bit = bytearray(good), int(rng.integers(0, 8 * len(good)))
        raw[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bytes(raw))
        _, _, step = Store(tmp_path).restore(abstract(state_at(0)), set_aside=False)
        assert step == 2, path
        path.write_bytes(good)
    assert Store(tmp_path).restore(abstract(state_at(0)))[2] == 3


def test_a_step_killed_before_it_was_sealed_is_judged_by_its_arrays(tmp_path):
    saved(tmp_path)
    (tmp_path / "3" / "files.json").unlink()
    assert Store(tmp_path).restore(abstract(state_at(0)))[2] == 3


def test_all_damaged_is_an_error_however_often_it_is_tried(tmp_path):
    damage(saved(tmp_path, (1,)) / "1", "truncate", None)
    for _ in range(2):  # moved away at the first try, the second would start afresh
        with pytest.raises(UserError, match="All checkpoints"):
            Store(tmp_path).restore(abstract(state_at(0)))


def test_a_half_written_step_does_not_count(tmp_path):
    saved(tmp_path)
    (tmp_path / "4.orbax-checkpoint-tmp").mkdir()
    assert Store(tmp_path).restore(abstract(state_at(0)))[2] == 3


def test_a_save_that_fails_is_loud_and_older_steps_stay(tmp_path):
    target = Store(saved(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # as a full disk: writing fails half-way
    try:
        with pytest.raises(RunError, match="checkpoint of step 4 could not be written.*steps? 1, 2, 3"):
            save_and_wait(target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.steps_in(tmp_path) == [1, 2, 3]
    assert Store(tmp_path).restore(abstract(state_at(0)))[2] == 3


def save_and_wait(target):
    target.save(4, state_at(4), {})
    target.wait()
