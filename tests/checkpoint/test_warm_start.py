import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitax.checkpoint import warm_start
from vitax.checkpoint.store import Store
from vitax.core.errors import UserError
from vitax.core.types import TrainState


def tree(**changes):
    params = {
        "encoder": {"kernel": jnp.ones((4, 4))},
        "head": {"kernel": jnp.ones((4, 10))},
        "pos_embedding": jnp.ones((1, 4, 2)),
    }
    params.update(changes)
    return params


def source(**changes):
    return {
        "encoder/kernel": jnp.full((4, 4), 2.0),
        "head/kernel": jnp.full((4, 7), 2.0),
        "pos_embedding": jnp.full((1, 4, 2), 2.0),
    } | changes


def test_says_what_was_placed_reset_resampled_and_ignored():
    def resample(array, shape):
        return np.resize(array, shape)

    params, done = warm_start.place(
        tree(pos_embedding=jnp.ones((1, 9, 2)), extra=jnp.zeros(3)),
        source(old=jnp.zeros(5)),
        ("^head/",),
        {"pos_embedding": resample},
    )
    assert done.placed == ["encoder/kernel"]
    assert done.resampled == ["pos_embedding [1, 4, 2] -> [1, 9, 2]"]
    assert done.ignored == ["old"]
    assert [line.split()[0] for line in done.reset] == ["extra", "head/kernel"]
    assert float(params["encoder"]["kernel"][0, 0]) == 2.0
    assert float(params["head"]["kernel"][0, 0]) == 1.0
    assert any("resampled" in line for line in done.lines())


def test_a_shape_that_nothing_mends_is_an_error():
    with pytest.raises(UserError, match=r"head/kernel: the source has float32\[4,7\], the model float32\[4,10\]"):
        warm_start.place(tree(), source(), (), {})


def test_another_family_is_an_error():
    with pytest.raises(UserError, match="no parameter of the source fits"):
        warm_start.place(tree(), {"conv": jnp.zeros(3)}, ("^head/",), {})


def test_find_names_the_steps_that_are_there(tmp_path, monkeypatch):
    store = Store(tmp_path / "run" / "checkpoints")
    state = TrainState(jnp.int32(3), tree(), {}, (), {})
    store.save(3, state, {})
    store.save(5, state, {})
    store.close()
    assert warm_start.find(str(tmp_path / "run")) == (tmp_path / "run" / "checkpoints", 5)
    assert warm_start.find(f"{tmp_path / 'run'}@3")[1] == 3
    monkeypatch.chdir(tmp_path)
    assert warm_start.find("run") == (tmp_path / "run" / "checkpoints", 5)  # relative paths too
    with pytest.raises(UserError, match="no step 4. There are: 3, 5"):
        warm_start.find(f"{tmp_path / 'run'}@4")
    with pytest.raises(UserError, match="Workdirs beside it: run"):
        warm_start.find(str(tmp_path / "rum"))


@pytest.mark.parametrize("averaged", [False, True])
def test_averaged_parameters_are_taken_where_there_are_any(tmp_path, averaged):
    store = Store(tmp_path / "checkpoints")
    average = jax.tree.map(lambda x: x * 3, tree()) if averaged else {}
    store.save(1, TrainState(jnp.int32(1), tree(), {}, (), average), {})
    store.close()
    mesh = jax.make_mesh((8,), ("data",))
    params, root = warm_start.load_params(tmp_path / "checkpoints", 1, mesh)
    assert root == ("ema" if averaged else "params")
    assert float(params["encoder/kernel"][0, 0]) == (3.0 if averaged else 1.0)
