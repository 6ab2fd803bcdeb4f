"""Noise: its rates, its independence of places and of the batch's split."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitax.layers.dropout import drop_branch, dropout, fold

RNG = jax.random.split(jax.random.key(0), 400)
ONES = jnp.ones((400, 5, 8))


def test_dropout_keeps_the_mean_and_rescales():
    y = dropout(ONES, 0.25, RNG, 3)
    assert set(np.unique(y).round(4)) == {0.0, np.float32(1 / 0.75).round(4)}
    assert float((y == 0).mean()) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / y.size) ** 0.5)


def test_off_is_identity():
    assert dropout(ONES, 0.0, RNG, 0) is ONES
    assert dropout(ONES, 0.5, None, 0) is ONES
    assert drop_branch(ONES, None, RNG, 0) is ONES
    assert drop_branch(ONES, 0.5, None, 0) is ONES
    assert (drop_branch(ONES, 1.0, RNG, 0) == 1).all()


def test_sites_and_examples_are_independent():
    first, second = (dropout(ONES, 0.5, RNG, site) > 0 for site in (0, 1))
    assert abs(float((first == second).mean()) - 0.5) < 0.02
    assert abs(float((first[:200] == first[200:]).mean()) - 0.5) < 0.02


def test_a_part_of_the_batch_draws_the_same_masks():
    whole = dropout(ONES, 0.5, RNG, 2)
    np.testing.assert_array_equal(whole[100:150], dropout(ONES[100:150], 0.5, RNG[100:150], 2))
    branch = drop_branch(ONES, 0.5, RNG, 2)
    np.testing.assert_array_equal(branch[100:150], drop_branch(ONES[100:150], 0.5, RNG[100:150], 2))


def test_branches_drop_whole_examples():
    y = drop_branch(ONES, 0.8, RNG, 1)
    kept = y[:, 0, 0] > 0
    assert float(kept.mean()) == pytest.approx(0.8, abs=4 * (0.8 * 0.2 / 400) ** 0.5)
    np.testing.assert_allclose(y, jnp.where(kept[:, None, None], 1 / 0.8, 0.0) * ONES)


def test_a_traced_rate_draws_as_a_static_one():
    static = drop_branch(ONES, np.float32(0.7), RNG, 1)
    np.testing.assert_array_equal(static, jax.jit(lambda keep: drop_branch(ONES, keep, RNG, 1))(jnp.float32(0.7)))


def test_fold_takes_traced_numbers():
    one, two = fold(RNG, 3), jax.jit(fold)(RNG, jnp.int32(3))
    assert (jax.random.key_data(one) == jax.random.key_data(two)).all()
    assert fold(None, 3) is None
