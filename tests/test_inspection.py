import numpy as np
import pytest

from vitax import inspection


def test_distance_by_hand():
    weights = np.zeros((1, 2, 5, 5))  # a class token and a grid of 2 x 2
    weights[0, 0] = np.eye(5)
    weights[0, 1, 1:, 1:] = np.eye(4)[[1, 0, 3, 2]]  # each attends to its neighbour in the row
    weights[0, 1, :, 0] = 9.0  # attending to the class token has no distance
    np.testing.assert_allclose(inspection.attention_distance(weights, (2, 2), (8, 16)), [0.0, 16.0])


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
