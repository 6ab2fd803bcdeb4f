"""Patch embedding and positions: learned, sine-cosine, resampled to another grid."""

from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vitax.core.errors import UserError, suggest
from vitax.layers.linear import flattened, linear
from vitax.layers.named import named

Array = jax.Array


class PatchEmbedding(nn.Module):
    """Cuts images into patches and projects each: ``kernel`` (P, Q, C, D), ``bias`` (D,).

    Windows do not overlap, so the convolution of the original is a reshape and a
    matrix product; its gradient is then one too, and the convolution's output
    layout no longer leaks into the residual stream on TPU.

    Attributes:
      width: D.
      patch_size: (height P, width Q) in pixels.
      dtype: compute dtype.
    """

    width: int
    patch_size: tuple[int, int]
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Maps [B, H, W, C] to [B, H/P * W/Q, D], row by row."""
        batch, height, width, channels = images.shape
        p, q = self.patch_size
        shape = (p, q, channels, self.width)
        names = ("patch_height", "patch_width", "channels", "embed")
        kernel_init = flattened(nn.initializers.lecun_normal(), 3)
        kernel = self.param("kernel", named(kernel_init, names), shape, jnp.float32)
        zeros = named(nn.initializers.zeros_init(), ("embed",))
        bias = self.param("bias", zeros, (self.width,), jnp.float32)
        # A row of a patch and its channels stay one axis: the TPU compiler moves 48 values
        # at once instead of 3 (0.25 ms of a B/16 step at 32 images a core).
        x = images.astype(self.dtype).reshape(batch, height // p, p, width // q, q * channels)
        x = x.transpose(0, 1, 3, 2, 4).reshape(batch, (height // p) * (width // q), p * q * channels)
        return linear(x, kernel.reshape(p * q * channels, self.width), bias, self.dtype)


def sincos2d(grid: tuple[int, int], width: int, temperature: float = 10_000.0) -> np.ndarray:
    """Fixed sine-cosine positions on a grid: float32 [1, rows * columns, width].

    Reference: MoCo v3, arXiv:2104.02057, and "Better plain ViT baselines",
    arXiv:2205.01580: quarters sin x, cos x, sin y, cos y.

    Raises:
      UserError: the width is not a multiple of 4 (or is 4).
    """
    if width % 4 or width < 8:
        raise UserError(f"position sincos2d: expected a width that is a multiple of 4 and at least 8, got {width}.")
    rows, columns = np.mgrid[: grid[0], : grid[1]]
    omega = temperature ** -(np.arange(width // 4) / (width // 4 - 1))
    x, y = columns.reshape(-1, 1) * omega, rows.reshape(-1, 1) * omega
    table = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)
    return table[None].astype(np.float32)


Method = Literal["corner_linear", "bilinear", "antialiased_bilinear", "bicubic", "antialiased_bicubic"]
METHODS: tuple[str, ...] = get_args(Method)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic kernel; ``a`` is its slope at 1."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _weights(old: int, new: int, method: str) -> np.ndarray:
    """Interpolation along one axis as a matrix, float64 [new, old]."""
    if method == "corner_linear":
        # scipy.ndimage.zoom(order=1): first and last samples coincide.
        at = np.arange(new) * ((old - 1) / (new - 1)) if new > 1 else np.zeros(1)
        return np.maximum(0.0, 1.0 - np.abs(at[:, None] - np.arange(old)))
    # Pixel centres coincide at the borders.
    scale = old / new
    at = (np.arange(new) + 0.5) * scale - 0.5
    if method.startswith("antialiased"):
        # The kernel widens when shrinking; what falls off the edge is left out.
        x = (at[:, None] - np.arange(old)) / max(scale, 1.0)
        weights = np.maximum(0.0, 1.0 - np.abs(x)) if method.endswith("linear") else _cubic(x, -0.5)
        return weights / weights.sum(1, keepdims=True)
    # Taps beyond the edge repeat it. torch's cubic has slope -0.75 here, and -0.5 above (PIL's).
    first = np.floor(at).astype(int) - 1
    weights = np.zeros((new, old))
    for tap in range(4):
        x = at - (first + tap)
        values = np.maximum(0.0, 1.0 - np.abs(x)) if method.endswith("linear") else _cubic(x, -0.75)
        np.add.at(weights, (np.arange(new), np.clip(first + tap, 0, old - 1)), values)
    return weights


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise UserError(f'Unknown method "{method}".{suggest(method, METHODS)} Valid: {", ".join(METHODS)}.')


def resample_positions(
    pos: np.ndarray,
    from_grid: tuple[int, int],
    to_grid: tuple[int, int],
    method: Method = "corner_linear",
) -> np.ndarray:
    """Resamples a table of positions from one grid of patches to another.

    Args:
      pos: float [1, slots, D]; slots is rows * columns of ``from_grid``, plus any
        slots in front of them (``cls``), which are kept as they are.
      from_grid: (rows, columns) of the table.
      to_grid: (rows, columns) wanted.
      method: ``corner_linear`` is what published fine-tunes used
        (``scipy.ndimage.zoom(order=1)``: corners stay corners); the others align
        centres, and the antialiased ones filter wider when shrinking.
        ``antialiased_bilinear`` is ``jax.image.resize(method="bilinear")``,
        ``antialiased_bicubic`` timm's, ``bicubic`` that of Hugging Face.

    Returns:
      float [1, slots', D], of the dtype of ``pos``, in NumPy.

    Raises:
      UserError: the table does not hold ``from_grid``, or an unknown method.

    Reference: ViT, arXiv:2010.11929, section 3.2 ("2D interpolation").
    """
    _check_method(method)
    pos = np.asarray(pos)
    rows, columns = from_grid
    extra = pos.shape[1] - rows * columns
    if pos.ndim != 3 or extra < 0:
        raise UserError(f"Positions of shape {pos.shape} do not hold a grid of {rows}x{columns} patches.")
    if from_grid == to_grid:
        return pos
    front, table = pos[:, :extra], pos[:, extra:].reshape(rows, columns, -1).astype(np.float64)
    vertical, horizontal = _weights(rows, to_grid[0], method), _weights(columns, to_grid[1], method)
    table = np.einsum("rR,cC,RCd->rcd", vertical, horizontal, table, optimize=True)
    return np.concatenate([front, table.reshape(1, -1, pos.shape[-1]).astype(pos.dtype)], axis=1)


def resample_kernel(
    kernel: np.ndarray, patch_size: tuple[int, int], method: Method = "antialiased_bicubic"
) -> np.ndarray:
    """Resamples the kernel of a patch embedding to another patch size.

    The result gives resized patches the embeddings that the kernel gives the patches
    before, as nearly as can be: the pseudo-inverse of the resize, not the resize.

    Args:
      kernel: float [P, Q, C, D].
      patch_size: (P', Q') wanted.
      method: how patches are thought to be resized; see ``resample_positions``.

    Returns:
      float [P', Q', C, D], of the dtype of ``kernel``, in NumPy.

    Reference: FlexiViT, arXiv:2212.08013, section 3.4 (PI-resize).
    """
    _check_method(method)
    kernel = np.asarray(kernel)
    if kernel.shape[:2] == tuple(patch_size):
        return kernel
    # The pseudo-inverse of a Kronecker product is that of its factors.
    vertical, horizontal = (
        np.linalg.pinv(_weights(old, new, method).T) for old, new in zip(kernel.shape[:2], patch_size)
    )
    resampled = np.einsum("rR,cC,RCid->rcid", vertical, horizontal, kernel.astype(np.float64), optimize=True)
    return resampled.astype(kernel.dtype)
