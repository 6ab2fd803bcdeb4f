"""The order of the data and its random numbers: golden, so that no upgrade moves a run's data."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from vitax.data import order

GOLDEN = {
    "permutation": [1, 5, 7, 6, 3, 0, 2, 4],
    "permutation_60000": "3157f193cdd23385",
    "feistel": [4, 2, 6, 1, 7, 0, 3, 5],
    "uniforms": [[0.11601760086349033, 0.3098182783239043], [0.3947818008347468, 0.004825461807572595]],
    "uniforms_8000": "928e4d9bd34bb42d",
}


def checksum(x: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()[:16]


def test_golden():
    """These numbers decide what every run sees: they may never change."""
    assert order.permutation(0, 0, 8).tolist() == GOLDEN["permutation"]
    assert checksum(order.permutation(7, 3, 60_000)) == GOLDEN["permutation_60000"]
    assert order.feistel(0, 0, 8, np.arange(8)).tolist() == GOLDEN["feistel"]
    np.testing.assert_array_equal(order.uniforms(0, "flip/0", np.array([0, 2**40]), 2), GOLDEN["uniforms"])
    assert checksum(order.uniforms(7, "randaugment/0", np.arange(1000), 8)) == GOLDEN["uniforms_8000"]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("seed", [0, 2**63, -5])
def test_permutations_are_permutations(length, seed):
    for epoch in range(3):
        assert sorted(order.permutation(seed, epoch, length)) == list(range(length))
        assert sorted(order.feistel(seed, epoch, length, np.arange(length))) == list(range(length))


@pytest.mark.parametrize("permute", [order.permutation, lambda s, e, n: order.feistel(s, e, n, np.arange(n))])
def test_all_orders_are_equally_likely(permute):
    """Chi-squared over the 24 orders of 4 examples: 49.7 is the 0.1 % point of 23 degrees of freedom."""
    counts = np.zeros((4,) * 4)
    for epoch in range(2400):
        counts[tuple(permute(3, epoch, 4))] += 1
    counts = counts[counts > 0]
    assert len(counts) == 24
    assert ((counts - 100) ** 2 / 100).sum() < 49.7


def test_epochs_and_seeds_differ():
    orders = [tuple(order.permutation(s, e, 50)) for s in range(4) for e in range(4)]
    assert len(set(orders)) == 16  # in particular seed 1, epoch 0 is not seed 0, epoch 1


def test_table_and_feistel_serve_positions(monkeypatch):
    positions = np.arange(95, 240)
    straight = order.Order(100, seed=1, shuffle=True)(positions)
    assert sorted(straight[5:105]) == list(range(100))
    monkeypatch.setattr(order, "TABLE_LIMIT", 10)
    without_table = order.Order(100, seed=1, shuffle=True)(positions)
    assert sorted(without_table[5:105]) == list(range(100))
    assert (without_table != straight).any()
    np.testing.assert_array_equal(order.Order(100, seed=1, shuffle=False)(positions), positions % 100)


def test_uniforms_are_uniform_and_independent():
    u = order.uniforms(0, "a/0", np.arange(50_000), 4)
    assert u.min() >= 0
    assert u.max() < 1
    assert np.abs(u.mean(0) - 0.5).max() < 0.01
    both = np.concatenate([u, order.uniforms(0, "b/0", np.arange(50_000), 2), np.roll(u[:, :1], 1, 0)], 1)
    assert np.abs(np.corrcoef(both.T) - np.eye(7)).max() < 0.02
    for column in u.T:
        histogram = np.histogram(column, 20, (0, 1))[0]
        assert ((histogram - 2500) ** 2 / 2500).sum() < 43.8  # 0.1 % point, 19 degrees of freedom


def test_uniforms_depend_on_nothing_else():
    u = order.uniforms(5, "flip/0", np.arange(100), 3)
    np.testing.assert_array_equal(order.uniforms(5, "flip/0", np.arange(40, 60), 3), u[40:60])
    np.testing.assert_array_equal(order.uniforms(5, "flip/0", np.arange(100), 1), u[:, :1])
    code = (
        "import numpy as np; from vitax.data import order; print(order.uniforms(5, 'flip/0', np.arange(2), 1).tolist())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.strip() == str(u[:2, :1].tolist())  # str hashes differ between processes


def test_data_needs_no_jax():
    code = (
        "import sys, vitax.data.pipeline, vitax.data.sources, vitax.data.image_ops;"
        "print([m for m in ('jax', 'flax', 'tensorflow', 'tensorflow_datasets', 'cv2', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
