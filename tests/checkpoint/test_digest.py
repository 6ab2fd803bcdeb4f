import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vitax.checkpoint import digest
from vitax.parallel.mesh import MeshSpec, build_mesh

RNG = np.random.default_rng(0)
ARRAYS = {
    "float32": RNG.normal(size=(8, 6)).astype(np.float32),
    "bfloat16": jnp.asarray(RNG.normal(size=(8, 6)), jnp.bfloat16),
    "int32": RNG.integers(-5, 5, (8, 6), dtype=np.int32),
    "int8": RNG.integers(-5, 5, (8, 6), dtype=np.int8),
    "bool": RNG.integers(0, 2, (8, 6)).astype(bool),
    "scalar": np.float32(3.0),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_numpy_and_device_agree(name):
    x = ARRAYS[name]
    got = digest.manifest({"x": jnp.asarray(x)})["x"]
    assert got.split(" ")[1] == digest.numpy_digest(np.asarray(x))


@pytest.mark.parametrize("spec", [P(), P("data"), P("data", "fsdp"), P(None, "fsdp"), P(("data", "fsdp"))])
def test_digest_does_not_depend_on_the_sharding(spec):
    mesh = build_mesh(MeshSpec(data=4, fsdp=2))
    for name in ("float32", "bfloat16", "int8", "bool"):
        x = jnp.asarray(ARRAYS[name])
        placed = jax.device_put(x, NamedSharding(mesh, spec))
        assert digest.manifest({"x": placed}) == digest.manifest({"x": x})


def test_every_single_bit_flip_and_swap_is_seen():
    x = np.asarray(RNG.normal(size=300), np.float32)
    good = digest.numpy_digest(x)
    raw = bytearray(x.tobytes())
    for bit in RNG.integers(0, 8 * len(raw), 1000):
        raw[bit // 8] ^= 1 << (bit % 8)
        assert digest.numpy_digest(np.frombuffer(bytes(raw), np.float32)) != good
        raw[bit // 8] ^= 1 << (bit % 8)
    for i, j in RNG.integers(0, 300, (300, 2)):
        if x[i] != x[j]:
            y = x.copy()
            y[i], y[j] = x[j], x[i]
            assert digest.numpy_digest(y) != good


def test_shape_and_dtype_count():
    x = jnp.zeros((2, 3))
    assert digest.manifest({"x": x}) != digest.manifest({"x": x.reshape(3, 2)})
    assert digest.manifest({"x": x}) != digest.manifest({"x": x.astype(jnp.bfloat16)})
    assert digest.manifest({"x": x}) != digest.manifest({"x": -x})  # -0.0 is not 0.0


def test_combined_digest_does_not_depend_on_order():
    assert digest.combine({"a": "1", "b": "2"}) == digest.combine({"b": "2", "a": "1"})
    assert digest.combine({"a": "1", "b": "2"}) != digest.combine({"a": "2", "b": "1"})
