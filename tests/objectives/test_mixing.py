import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import stats

from vitax.core.errors import UserError
from vitax.objectives.mixing import mix, symmetric_beta

B, H, W, C, CLASSES = 5, 12, 20, 3, 7

MIXUP = {"mixup_alpha": 0.4}
CUTMIX = {"cutmix_alpha": 1.0}
BOTH = {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}
ALL = pytest.mark.parametrize("how", [MIXUP, CUTMIX, BOTH], ids=["mixup", "cutmix", "both"])


@functools.cache
def batch():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(B, H, W, C)), jnp.float32)
    return images, jax.nn.one_hot(jnp.arange(B), CLASSES)


@functools.cache
def many(count=400, **how):
    """Outputs for many keys; leading axis = key."""
    keys = jax.vmap(jax.random.key)(jnp.arange(count))
    x = batch()
    images, targets = jax.jit(jax.vmap(lambda k: mix(*x, k, **how)))(keys)
    return np.asarray(images), np.asarray(targets)


def own_share(targets):
    """Weight of the row's own class [keys]; the same in all rows."""
    shares = targets[:, np.arange(B), np.arange(B)]
    np.testing.assert_array_equal(shares, np.repeat(shares[:, :1], B, axis=1))
    return shares[:, 0]


@ALL
def test_targets_sum_to_one_and_touch_two_classes(how):
    _, targets = many(**how)
    np.testing.assert_allclose(targets.sum(-1), 1.0, atol=1e-6)
    own = own_share(targets)
    for row in range(B):
        np.testing.assert_allclose(targets[:, row, (row - 1) % B], 1 - own, atol=1e-7)


def test_mixup_is_the_convex_combination_and_stays_mostly_itself():
    images, targets = many(**MIXUP)
    own = own_share(targets)
    assert own.min() >= 0.5
    x = np.asarray(batch()[0], np.float64)
    lam = own[:, None, None, None, None].astype(np.float64)
    np.testing.assert_allclose(images, lam * x + (1 - lam) * np.roll(x, 1, axis=0), atol=1e-6)


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.5, 1.0, 8.0, 500.0])
def test_symmetric_beta(alpha):
    uniform = jax.random.uniform(jax.random.key(0), (5000, 2))
    drawn = np.asarray(jax.jit(jax.vmap(lambda u: symmetric_beta(u, alpha)))(uniform), np.float64)
    assert np.abs(drawn - 0.5).max() <= 0.5
    # Short of the ends: float32 rounds what is nearest to 1 to 1.
    x = np.linspace(0.001, 0.999, 200)
    got = (drawn[:, None] < x).mean(axis=0)
    np.testing.assert_allclose(got, stats.beta.cdf(x, alpha, alpha), atol=0.03)


def test_symmetric_beta_at_the_ends_of_its_numbers():
    edges = jnp.array([0.0, 2.0**-24, 0.25, 0.5, 0.75, 1 - 2.0**-24])
    pairs = jnp.stack(jnp.meshgrid(edges, edges), axis=-1).reshape(-1, 2)
    for alpha in (0.01, 1.0, 500.0):
        drawn = np.asarray(jax.vmap(lambda u, a=alpha: symmetric_beta(u, a))(pairs))
        assert np.all((drawn >= 0) & (drawn <= 1))


def test_mixup_draws_beta():
    own = own_share(many(2000, **MIXUP)[1]).astype(np.float64)
    assert stats.kstest(own, lambda x: 2 * stats.beta.cdf(x, 0.4, 0.4) - 1).pvalue > 1e-3


def test_cutmix_weight_is_exactly_the_area():
    images, targets = many(**CUTMIX)
    x = np.asarray(batch()[0])
    kept = images == x[None]
    pasted = images == np.roll(x, 1, axis=0)[None]
    assert np.all(kept ^ pasted)  # every pixel is one of the two, to the bit
    area = kept.all(axis=-1)
    assert np.array_equal(area, kept.any(axis=-1))
    assert np.all(area == area[:, :1])  # one box a batch
    count = area[:, 0].sum(axis=(1, 2))
    own = own_share(targets)
    np.testing.assert_array_equal(np.round(own * H * W), count)
    np.testing.assert_allclose(own, count / (H * W), atol=1.2e-7)  # XLA divides by a reciprocal
    assert len(set(count)) > 50


def test_cutmix_pastes_one_box():
    images, _ = many(**CUTMIX)
    pasted = (images != np.asarray(batch()[0])[None])[:, 0, :, :, 0]
    for box in pasted:
        rows, columns = box.any(axis=1), box.any(axis=0)
        np.testing.assert_array_equal(box, rows[:, None] & columns[None])
        for line in (rows, columns):
            assert np.abs(np.diff(line.astype(int), prepend=0, append=0)).sum() in (0, 2)  # contiguous
    # It reaches every corner, though the middle more often, as boxes are cut off at the border.
    assert 0.08 < pasted.mean(axis=0).min() < pasted.mean(axis=0).max() < 0.6


def test_both_switches():
    images, _ = many(**BOTH)
    x = np.asarray(batch()[0])
    cut = ((images == x) | (images == np.roll(x, 1, axis=0))).all(axis=(1, 2, 3, 4))
    assert 0.4 < cut.mean() < 0.6
    for switch, want in ((0.0, MIXUP), (1.0, CUTMIX)):
        for a, b in zip(many(50, switch=switch, **BOTH), many(50, **want)):
            np.testing.assert_array_equal(a, b)


def test_probability():
    images, targets = many(probability=0.3, **BOTH)
    same = (images == np.asarray(batch()[0])).all(axis=(1, 2, 3, 4))
    assert 0.2 < 1 - same.mean() < 0.4
    np.testing.assert_array_equal(own_share(targets)[same] == 1, True)
    assert np.all((many(50, probability=0.0, **BOTH)[0]) == np.asarray(batch()[0]))


def test_off_is_the_identity():
    images, targets = batch()
    out = mix(images, targets, jax.random.key(0))
    assert out[0] is images
    assert out[1] is targets


@ALL
def test_only_the_key_decides(how):
    images, targets = batch()
    fn = jax.jit(functools.partial(mix, **how))
    a, b = fn(images, targets, jax.random.key(3)), fn(images, targets, jax.random.key(3))
    np.testing.assert_array_equal(a[0], b[0])
    assert not np.array_equal(a[0], fn(images, targets, jax.random.key(4))[0])
    # A batch of other images and another size draws the same weights and box.
    other = fn(jnp.zeros((3, H, W, C)), jax.nn.one_hot(jnp.arange(3), CLASSES), jax.random.key(3))
    np.testing.assert_allclose(other[1][0, 0], a[1][0, 0], atol=1e-7)


def test_sharding_of_the_batch_changes_nothing():
    devices = np.array(jax.devices())
    rng = np.random.default_rng(0)
    rows = 2 * len(devices)
    images, targets = rng.normal(size=(rows, H, W, C)).astype(np.float32), np.eye(rows, dtype=np.float32)
    fn = jax.jit(functools.partial(mix, **BOTH))
    whole = fn(images, targets, jax.random.key(5))
    sharding = NamedSharding(Mesh(devices, ("data",)), PartitionSpec("data"))
    split = fn(*jax.device_put((images, targets), sharding), jax.random.key(5))
    for a, b in zip(whole, split):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_dtypes_and_shapes_stay():
    images, targets = batch()
    out = jax.eval_shape(functools.partial(mix, **BOTH), images.astype(jnp.bfloat16), targets, jax.random.key(0))
    assert (out[0].dtype, out[0].shape) == (jnp.bfloat16, images.shape)
    assert (out[1].dtype, out[1].shape) == (jnp.float32, targets.shape)


@pytest.mark.parametrize(
    "bad", [{"mixup_alpha": -1.0}, {"cutmix_alpha": float("nan")}, {"probability": 1.5}, {"switch": -0.1}]
)
def test_refuses(bad):
    with pytest.raises(UserError, match=next(iter(bad)).removesuffix("_alpha")):
        mix(*batch(), jax.random.key(0), **{**MIXUP, **bad})
