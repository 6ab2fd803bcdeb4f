import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vitax.core import axes


def constraints(names=("batch", "embed")):
    return jax.jit(lambda x: axes.constrain(x, names)).lower(jnp.ones((2, 4))).as_text().count("sharding_constraint")


def test_identity_without_a_resolver():
    x = jnp.ones((2, 4))
    assert axes.constrain(x, ("batch", "embed")) is x
    assert constraints() == 0


def test_resolver_gets_names_and_shape_and_is_undone():
    seen = []
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec("data"))

    def resolver(names, shape):
        seen.append((tuple(names), shape))
        return sharding

    with axes.resolving(resolver):
        assert constraints() == 1
    assert seen == [(("batch", "embed"), (2, 4))]
    assert constraints() == 0


def test_a_sharding_can_be_asked_for():
    assert axes.resolve(("batch",), (2,)) is None
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec("data"))
    with axes.resolving(lambda names, shape: sharding if (names, shape) == (("batch",), (2,)) else None):
        assert axes.resolve(("batch",), (2,)) is sharding
        assert axes.resolve(("batch",), (3,)) is None


def test_resolver_may_decline():
    with axes.resolving(lambda names, shape: None):
        assert constraints() == 0


def test_undone_after_an_error():
    with pytest.raises(ZeroDivisionError), axes.resolving(lambda names, shape: 1 / 0):
        axes.constrain(jnp.ones(2), ("batch",))
    assert constraints() == 0


def test_one_name_an_axis():
    with pytest.raises(ValueError, match="2 axis names"):
        axes.constrain(jnp.ones(3), ("batch", "embed"))
