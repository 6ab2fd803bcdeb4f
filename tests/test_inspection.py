import numpy as np
import pytest

from vitax import inspection


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_rollout_of_attention_to_oneself_is_the_identity():
    eye = np.broadcast_to(np.eye(5), (3, 5, 5))
    np.testing.assert_allclose(inspection.rollout([eye, eye]), np.eye(5))


def test_rollout_multiplies_in_the_order_of_the_blocks():
    rng = np.random.default_rng(0)
    first, second = (softmax(rng.standard_normal((2, 4, 4))) for _ in range(2))
    half = [0.5 * w.mean(0) + 0.5 * np.eye(4) for w in (first, second)]
    # What the last block attends to, seen through the first.
    np.testing.assert_allclose(inspection.rollout([first, second]), half[1] @ half[0])
    np.testing.assert_allclose(inspection.rollout([first, second]).sum(-1), 1.0)


def test_distance_by_hand():
    weights = np.zeros((1, 2, 5, 5))  # a class token and a grid of 2 x 2
    weights[0, 0] = np.eye(5)
    weights[0, 1, 1:, 1:] = np.eye(4)[[1, 0, 3, 2]]  # each attends to its neighbour in the row
    weights[0, 1, :, 0] = 9.0  # attending to the class token has no distance
    np.testing.assert_allclose(inspection.attention_distance(weights, (2, 2), (8, 16)), [0.0, 16.0])


def test_the_class_token_or_the_mean_looks():
    weights = softmax(np.random.default_rng(0).standard_normal((7, 7)))
    np.testing.assert_allclose(inspection.token_attention(weights, (2, 3), 1).ravel(), weights[0, 1:])
    np.testing.assert_allclose(inspection.token_attention(weights[1:, 1:], (2, 3), 0).ravel(), weights[1:, 1:].mean(0))


def test_filters_are_the_directions_of_largest_variance():
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(48)
    kernel = np.outer(direction, rng.standard_normal(64)).reshape(4, 4, 3, 64) + 1e-3 * rng.standard_normal(
        (4, 4, 3, 64)
    )
    found = inspection.patch_filters(kernel)
    assert found.shape == (28, 4, 4, 3)
    assert abs(found[0].ravel() @ direction) == pytest.approx(np.linalg.norm(direction), rel=1e-3)


def test_positions_are_most_like_themselves():
    positions = np.random.default_rng(0).standard_normal((1, 13, 32))
    similar = inspection.position_similarity(positions, (3, 4))
    assert similar.shape == (3, 4, 3, 4)
    np.testing.assert_allclose([similar[r, c, r, c] for r in range(3) for c in range(4)], 1.0)
    assert similar.max() <= 1.0 + 1e-12
