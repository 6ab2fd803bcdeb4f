import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitax.core import metrics
from vitax.core.metrics import Mean


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 11), st.integers(0, 2**31))
def test_sum_of_parts_is_the_whole(size, cut, seed):
    rng = np.random.default_rng(seed)
    # Small integers: sums are exact in float32, so equality needs no tolerance.
    values, mask = jnp.array(rng.integers(-50, 50, size), jnp.float32), jnp.array(rng.random(size) < 0.7)
    cut = min(cut, size)
    whole = Mean.of(values, mask)
    parts = Mean.zero() + Mean.of(values[:cut], mask[:cut]) + Mean.of(values[cut:], mask[cut:])
    assert (float(parts.total), float(parts.weight)) == (float(whole.total), float(whole.weight))
    assert float(whole.weight) == int(mask.sum())


def test_unequal_parts_are_not_averaged_as_equals():
    parts = Mean.of(jnp.array([1.0, 1.0, 1.0])) + Mean.of(jnp.array([5.0]))
    assert float(parts.compute()) == 2.0  # an average of averages says 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_padding_does_not_leak(bad):
    mean = Mean.of(jnp.array([[1.0, 3.0], [bad, bad]]), jnp.array([True, False]))
    assert (float(mean.total), float(mean.weight)) == (4.0, 2.0)


def test_low_precision_values_are_summed_in_float32():
    mean = Mean.of(jnp.full(4096, 1.0, jnp.bfloat16))
    assert mean.total.dtype == jnp.float32
    assert float(mean.total) == 4096.0


def test_nothing_counted_is_nan_not_zero():
    assert np.isnan(float(Mean.of(jnp.ones(3), jnp.zeros(3, bool)).compute()))


def test_add_and_compute_dictionaries():
    a = {"loss": Mean.of(jnp.array([2.0]))}
    total = metrics.add(a, {"loss": Mean.of(jnp.array([4.0, 6.0]))})
    assert metrics.compute({**total, "lr": jnp.float32(0.5)}) == {"loss": 4.0, "lr": 0.5}
    with pytest.raises(ValueError, match="accuracy"):
        metrics.add(a, {"accuracy": Mean.zero()})
