"""Losses against scipy in double precision, and at the ends of the number line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from vitax.objectives import losses

softmax_cross_entropy = jax.jit(losses.softmax_cross_entropy, static_argnames="label_smoothing")
sigmoid_cross_entropy = jax.jit(losses.sigmoid_cross_entropy)
topk_correct = jax.jit(losses.topk_correct, static_argnames="k")

B, C = 16, 11
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(B, C)) * 5
LABELS = RNG.integers(0, C, B)
ONE_HOT = np.eye(C)[LABELS]
SOFT = RNG.dirichlet(np.ones(C), B)


def f32(x):
    return jnp.asarray(x, jnp.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("targets", ["labels", "one_hot", "soft"])
def test_softmax(targets, smoothing):
    given, probabilities = {"labels": (LABELS, ONE_HOT), "one_hot": (ONE_HOT, ONE_HOT), "soft": (SOFT, SOFT)}[targets]
    want = -(((1 - smoothing) * probabilities + smoothing / C) * special.log_softmax(LOGITS, axis=-1)).sum(-1)
    got = softmax_cross_entropy(f32(LOGITS), jnp.asarray(given), label_smoothing=smoothing)
    assert got.shape == (B,)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("targets", ["labels", "one_hot", "soft"])
def test_sigmoid(targets):
    given, t = {"labels": (LABELS, ONE_HOT), "one_hot": (ONE_HOT, ONE_HOT), "soft": (SOFT, SOFT)}[targets]
    want = -(t * special.log_expit(LOGITS) + (1 - t) * special.log_expit(-LOGITS)).sum(-1)
    got = sigmoid_cross_entropy(f32(LOGITS), jnp.asarray(given))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_sigmoid_is_a_sum_over_classes():
    assert float(sigmoid_cross_entropy(jnp.zeros((1, 1000)), jnp.array([3]))[0]) == pytest.approx(1000 * np.log(2))
    # The loss at ViT's initial head bias of -10: one class that is on, 21,842 that are off.
    start = sigmoid_cross_entropy(jnp.full((1, 21_843), -10.0), jnp.array([3]))
    assert float(start[0]) == pytest.approx(10 + 21_843 * np.log1p(np.exp(-10)), rel=1e-5)


@pytest.mark.parametrize("loss", [softmax_cross_entropy, sigmoid_cross_entropy])
def test_gradients(loss):
    got = jax.grad(lambda x: loss(x, jnp.asarray(SOFT)).sum())(f32(LOGITS))
    p = special.softmax(LOGITS, axis=-1) if loss is softmax_cross_entropy else special.expit(LOGITS)
    np.testing.assert_allclose(got, p - SOFT, atol=2e-6)


@pytest.mark.parametrize("loss", [softmax_cross_entropy, sigmoid_cross_entropy])
def test_large_logits_keep_their_digits(loss):
    x = np.array([[1e4, 1e4 - 1, -1e4], [-1e30, 1e30, 0.0], [3000.5, 3000.0, 2990.0]])
    labels = np.array([1, 1, 0])
    if loss is softmax_cross_entropy:
        want = -special.log_softmax(x, axis=-1)[range(3), labels]
    else:
        want = np.logaddexp(0, x).sum(-1) - x[range(3), labels]
    np.testing.assert_allclose(loss(f32(x), jnp.asarray(labels)), want, rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda x: loss(x, jnp.asarray(labels)).sum())(f32(x))
    assert np.isfinite(gradient).all()


def test_masked_classes_of_probability_zero():
    x = f32([[0.0, 1.0, -np.inf]])
    want = -special.log_softmax([0.0, 1.0])[0]
    for targets in (jnp.array([0]), jnp.array([[1.0, 0.0, 0.0]])):
        np.testing.assert_allclose(softmax_cross_entropy(x, targets), [want], rtol=1e-6)


def test_low_precision_logits_are_widened_first():
    x = jnp.asarray(LOGITS, jnp.bfloat16)
    for loss in (softmax_cross_entropy, sigmoid_cross_entropy):
        np.testing.assert_array_equal(loss(x, jnp.asarray(LABELS)), loss(x.astype(jnp.float32), jnp.asarray(LABELS)))


def test_sequences():
    x, y = f32(LOGITS.reshape(4, 4, C)), jnp.asarray(LABELS.reshape(4, 4))
    for measure in (softmax_cross_entropy, sigmoid_cross_entropy, lambda a, b: topk_correct(a, b, 2)):
        flat = measure(f32(LOGITS), jnp.asarray(LABELS))
        np.testing.assert_allclose(measure(x, y).reshape(-1), flat, rtol=1e-6)


def test_labels_outside_are_finite_and_never_correct():
    outside = jnp.array([-1, C] * (B // 2))
    assert np.isfinite(softmax_cross_entropy(f32(LOGITS), outside, label_smoothing=0.1)).all()
    assert np.isfinite(sigmoid_cross_entropy(f32(LOGITS), outside)).all()
    assert not topk_correct(f32(LOGITS), outside, C).any()


@pytest.mark.parametrize("k", [1, 2, 5, C, C + 3])
def test_topk_is_that_of_a_stable_sort(k):
    # Few distinct values, so that most rows have ties at the edge.
    x = RNG.integers(0, 4, (200, C)).astype(np.float32)
    labels = RNG.integers(0, C, 200)
    order = np.argsort(-x, axis=-1, kind="stable")[:, :k]
    want = (order == labels[:, None]).any(-1)
    np.testing.assert_array_equal(topk_correct(f32(x), jnp.asarray(labels), k), want)
    _, top = jax.lax.top_k(f32(x), min(k, C))
    np.testing.assert_array_equal((np.asarray(top) == labels[:, None]).any(-1), want)


def test_equal_logits_are_right_on_one_class_in_ten():
    assert float(topk_correct(jnp.zeros((10, 10)), jnp.arange(10), 1).sum()) == 1


def test_nan_is_never_right():
    x = f32([[np.nan, 0.0, 1.0], [0.0, 1.0, np.nan], [np.nan] * 3, [np.inf, 0.0, -np.inf]])
    np.testing.assert_array_equal(topk_correct(x, jnp.array([0, 1, 2, 0]), 3), [0, 0, 0, 1])


def test_k_below_one():
    with pytest.raises(ValueError, match="at least 1"):
        topk_correct(f32(LOGITS), jnp.asarray(LABELS), 0)
