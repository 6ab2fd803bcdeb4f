"""A small train state, and a folder of checkpoints of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitax.checkpoint.store import Store
from vitax.core.types import TrainState


def state_at(step, averages=True):
    rng = np.random.default_rng(step)
    params = {
        "encoder": {"block_00": {"kernel": rng.normal(size=(64, 32)).astype(np.float32)}},
        "bias": jnp.asarray(rng.normal(size=8), jnp.bfloat16),
    }
    params = jax.tree.map(jnp.asarray, params)
    ema = jax.tree.map(lambda x: x * 2, params) if averages else {}
    return TrainState(jnp.int32(step), params, {}, ({"mu": params, "count": jnp.int32(step)}, ()), ema)


def save(path, steps=(1, 2), averages=True):
    target = Store(path / "checkpoints")
    for step in steps:
        metadata = {"recipe": {"seed": step}, "versions": {"vitax": "0"}, "class_names": None, "name": "tiny:x"}
        target.save(step, state_at(step, averages), metadata)
    target.close()
    (path / "recipe.json").write_text("{}")
    return path


@pytest.fixture
def run(tmp_path):
    """A workdir with steps 1 and 2."""
    return save(tmp_path / "run")


@pytest.fixture
def flip():
    """Flips one bit of a file."""

    def flip(path, bit=100):
        raw = bytearray(path.read_bytes())
        raw[bit // 8 % len(raw)] ^= 1 << (bit % 8)
        path.write_bytes(bytes(raw))

    return flip


@pytest.fixture
def largest():
    """The data file of a step."""
    return lambda folder: max((p for p in (folder / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
