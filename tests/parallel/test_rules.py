import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from vitax.core import axes
from vitax.core.errors import UserError
from vitax.parallel.mesh import MeshSpec, build_mesh
from vitax.parallel.rules import Rules, replicated


@pytest.fixture(scope="module")
def mesh():
    return build_mesh(MeshSpec(data=2, fsdp=2, tensor=2))


def test_names_become_mesh_axes(mesh):
    rules = Rules.build()
    assert rules.spec(("embed", "heads", "head_dim"), (64, 4, 16), mesh, "q") == P("fsdp", "tensor", None)
    assert rules.spec(("batch", None), (8, 3), mesh, "x") == P(("data", "fsdp"), None)


def test_a_dimension_that_does_not_divide_stays_whole(mesh):
    assert Rules.build().spec(("embed", "classes"), (64, 9), mesh, "head") == P("fsdp", None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"embd": "fsdp"}, 'unknown logical axis "embd".*"embed"'),
        ({"embed": "fdsp"}, 'unknown mesh axis "fdsp".*"fsdp"'),
    ],
)
def test_unknown_names_are_loud(overrides, message):
    with pytest.raises(UserError, match=message):
        Rules.build(overrides)


def test_unknown_name_in_a_model_is_loud(mesh):
    with pytest.raises(UserError, match='parameter w: unknown logical axis "embedd"'):
        Rules.build().spec(("embedd",), (4,), mesh, "parameter w")


def test_one_mesh_axis_twice_is_loud(mesh):
    with pytest.raises(UserError, match='mesh axis "fsdp" would shard two dimensions'):
        Rules.build().spec(("embed", "embed"), (64, 64), mesh, "w")


def test_batch_that_does_not_divide_names_the_nearest(mesh):
    with pytest.raises(UserError, match="nearest that do: 8 and 12"):
        Rules.build().batch((10, 3), mesh)


def test_large_replicated_parameters_are_named(mesh):
    big = {"table": jax.ShapeDtypeStruct((4096, 2048), jnp.float32), "bias": jax.ShapeDtypeStruct((8,), jnp.float32)}
    whole = jax.tree.map(lambda _: jax.NamedSharding(mesh, P()), big)
    assert replicated(big, whole, mesh) == ["table float32[4096,2048]"]
    split = {**whole, "table": jax.NamedSharding(mesh, P("fsdp"))}
    assert replicated(big, split, mesh) == []


def test_constraints_reach_the_compiled_program(mesh):
    # Flax's own constraint vanishes without a global mesh; ours must not.
    def f(x):
        with axes.resolving(Rules.build().resolver(mesh)):
            return axes.constrain(x * 2, ("batch", "embed")).sum()

    text = jax.jit(f).lower(jax.ShapeDtypeStruct((8, 4), jnp.float32)).as_text()
    assert text.count("sharding_constraint") + text.count("@Sharding") > 0


def test_constrain_is_identity_outside_a_program():
    x = jnp.ones((2, 3))
    assert axes.constrain(x, ("batch", "embed")) is x
    with pytest.raises(ValueError, match="axis names"):
        axes.constrain(x, ("batch",))
