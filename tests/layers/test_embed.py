"""Patch embedding and positions against the operations that they stand for."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from flax import linen as nn

from vitax.core.errors import UserError
from vitax.layers.embed import PatchEmbedding, resample_kernel, resample_positions, sincos2d

with np.load(Path(__file__).parents[1] / "golden" / "published" / "resample.npz") as file:
    GOLDEN = dict(file)  # by torch: scripts/make_published_golden.py


def table(grid, front=1, width=5):
    return np.random.default_rng(0).standard_normal((1, front + grid[0] * grid[1], width)).astype(np.float32)


def test_patches_equal_a_convolution():
    model = PatchEmbedding(6, (4, 2))
    images = jax.random.normal(jax.random.key(0), (2, 8, 10, 3))
    params = nn.meta.unbox(model.init(jax.random.key(1), images))["params"]
    conv = jax.lax.conv_general_dilated(
        *(images, params["kernel"]), window_strides=(4, 2), padding="VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    have = model.apply({"params": params}, images)
    np.testing.assert_allclose(have, conv.reshape(2, 2 * 5, 6), atol=1e-5)


@pytest.mark.parametrize("method", ["corner_linear", "antialiased_bilinear"])
@pytest.mark.parametrize("front", [0, 1, 3])
def test_same_grid_is_identity(method, front):
    pos = table((3, 4), front)
    assert (resample_positions(pos, (3, 4), (3, 4), method) == pos).all()


@pytest.mark.parametrize("to", [(12, 12), (3, 5), (7, 14), (1, 1), (14, 1)])
@pytest.mark.parametrize("front", [0, 1])
def test_corner_linear_equals_scipy_zoom(to, front):
    grid = (7, 7)
    pos = table(grid, front)
    square = pos[0, front:].reshape(*grid, -1)
    want = scipy.ndimage.zoom(square, (to[0] / grid[0], to[1] / grid[1], 1), order=1)
    have = resample_positions(pos, grid, to)
    assert have.dtype == np.float32
    np.testing.assert_array_equal(have[:, :front], pos[:, :front])
    np.testing.assert_allclose(have[0, front:], want.reshape(to[0] * to[1], -1), atol=1e-6)


@pytest.mark.parametrize("to", [(12, 9), (3, 2), (4, 11)])
def test_antialiased_bilinear_equals_jax_resize(to):
    pos = table((6, 5))
    want = jax.image.resize(pos[0, 1:].reshape(6, 5, -1), (*to, 5), "bilinear", antialias=True)
    have = resample_positions(pos, (6, 5), to, "antialiased_bilinear")
    np.testing.assert_allclose(have[0, 1:], np.asarray(want).reshape(to[0] * to[1], -1), atol=1e-5)


def test_rows_and_columns_are_not_mixed_up():
    pos = np.repeat(np.arange(3.0, dtype=np.float32), 2).reshape(1, 6, 1)  # 3 rows, 2 columns: the row's number
    have = resample_positions(pos, (3, 2), (5, 2))
    np.testing.assert_allclose(have.reshape(5, 2), np.repeat([0, 0.5, 1, 1.5, 2], 2).reshape(5, 2))


@pytest.mark.parametrize("name", [n for n in GOLDEN if n.startswith(("bicubic", "antialiased"))])
def test_bicubic_equals_torch(name):
    method, _, size = name.rpartition("_")
    rows, columns = map(int, size.split("x"))
    have = resample_positions(GOLDEN["table"], (3, 5), (rows, columns), method)
    assert np.abs(have - GOLDEN[name]).max() / np.abs(GOLDEN[name]).max() <= 1e-6


def test_bilinear_without_antialias_equals_two_taps_between_pixel_centres():
    pos = table((3, 4), 0)
    for rows, columns in ((2, 2), (5, 7)):
        scale = jnp.array([rows / 3, columns / 4])
        want = jax.image.scale_and_translate(
            pos.reshape(3, 4, -1),
            (rows, columns, pos.shape[-1]),
            (0, 1),
            scale,
            jnp.zeros(2),
            "linear",
            antialias=False,
        )
        have = resample_positions(pos, (3, 4), (rows, columns), "bilinear").reshape(want.shape)
        np.testing.assert_allclose(have, want, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in GOLDEN if n.startswith("kernel_")])
def test_patch_kernels_are_resampled_as_by_timm(name):
    rows, columns = map(int, name.removeprefix("kernel_").split("x"))
    have = resample_kernel(GOLDEN["kernel"], (rows, columns), "antialiased_bicubic")
    assert np.abs(have - GOLDEN[name]).max() / np.abs(GOLDEN[name]).max() <= 1e-5


@pytest.mark.parametrize("method", ["bilinear", "antialiased_bicubic"])
def test_resized_patches_keep_their_embeddings_when_they_grow(method):
    rng = np.random.default_rng(0)
    patch, kernel = rng.standard_normal((4, 4, 3)), rng.standard_normal((4, 4, 3, 6))
    grown = resample_positions(patch.reshape(1, 16, 3), (4, 4), (8, 6), method).reshape(8, 6, 3)
    have = np.einsum("pqc,pqcd->d", grown, resample_kernel(kernel, (8, 6), method))
    np.testing.assert_allclose(have, np.einsum("pqc,pqcd->d", patch, kernel), rtol=1e-9)


def test_wrong_tables_are_named():
    with pytest.raises(UserError, match="do not hold a grid of 4x4"):
        resample_positions(table((3, 4), 0), (4, 4), (2, 2))
    with pytest.raises(UserError, match='Did you mean "bicubic".*Valid: corner_linear, bilinear'):
        resample_positions(table((3, 4)), (3, 4), (2, 2), "cubic")


def test_sincos_by_hand():
    pos = sincos2d((2, 3), 8).reshape(2, 3, 4, 2)
    for row in range(2):
        for column in range(3):
            for k, omega in enumerate((1.0, 1e-4)):
                want = [f(a * omega) for a in (column, row) for f in (np.sin, np.cos)]
                np.testing.assert_allclose(pos[row, column, :, k], want, atol=1e-6)
    assert jnp.asarray(pos).dtype == jnp.float32
    with pytest.raises(UserError, match="multiple of 4"):
        sincos2d((2, 2), 6)
