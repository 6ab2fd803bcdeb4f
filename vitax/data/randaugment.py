"""RandAugment in the form of the TensorFlow models and of AugReg."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

FILL = 128  # what geometry uncovers
CUTOUT_HALF_SIDE = 40  # pixels at magnitude 10
TRANSLATE = 100  # pixels at magnitude 10


def _blend(base: np.ndarray | float, image: np.ndarray, factor: float) -> np.ndarray:
    """base + factor * (image - base), clipped; factor 1 is the image."""
    mixed = base + factor * (image.astype(np.float32) - base)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _grey(image: np.ndarray) -> np.ndarray:
    """float32 [H, W, 1] luminance, whole numbers as TensorFlow's uint8 result has."""
    if image.shape[-1] == 1:
        return image.astype(np.float32)
    return np.floor(image @ np.array([0.2989, 0.5870, 0.1140], np.float32))[..., None]


def _auto_contrast(image: np.ndarray) -> np.ndarray:
    out = image.copy()
    for c in range(image.shape[-1]):
        low, high = int(image[..., c].min()), int(image[..., c].max())
        if high > low:
            table = np.clip((np.arange(256) - low) * 255 / (high - low), 0, 255).astype(np.uint8)
            out[..., c] = table[image[..., c]]
    return out


def _equalize(image: np.ndarray) -> np.ndarray:
    out = image.copy()
    for c in range(image.shape[-1]):
        counts = np.bincount(image[..., c].ravel(), minlength=256)
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        if step:
            table = (np.cumsum(counts) - counts + step // 2) // step
            out[..., c] = np.clip(table, 0, 255).astype(np.uint8)[image[..., c]]
    return out


def _posterize(image: np.ndarray, level: float) -> np.ndarray:
    shift = max(8 - int(level * 4), 0)
    return (image >> shift) << shift


def _solarize(image: np.ndarray, level: float) -> np.ndarray:
    return np.where(image < int(level * 256), image, 255 - image)


def _solarize_add(image: np.ndarray, level: float) -> np.ndarray:
    added = np.clip(image.astype(np.int32) + int(level * 110), 0, 255).astype(np.uint8)
    return np.where(image < 128, added, image)


def _sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    if min(image.shape[:2]) < 3:
        return image
    x = image.astype(np.float32)
    rows = x[:-2] + x[1:-1] + x[2:]
    smooth = x.copy()  # the border stays
    smooth[1:-1, 1:-1] = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * x[1:-1, 1:-1]) / 13
    return _blend(np.floor(smooth), image, factor)


def _warp(image: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    """Nearest-neighbour affine map; ``matrix`` takes a place of the result to one of the image."""
    import cv2

    cv2.setNumThreads(0)
    height, width, channels = image.shape
    out = cv2.warpAffine(
        np.ascontiguousarray(image),
        np.array(matrix, np.float64),
        (width, height),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(FILL,) * channels,
    )
    return out[..., None] if out.ndim == 2 else out


def _rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    cy, cx = (image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2
    return _warp(image, [[cos, -sin, cx - cos * cx + sin * cy], [sin, cos, cy - sin * cx - cos * cy]])


def _cutout(image: np.ndarray, half: int, y: float, x: float) -> np.ndarray:
    cy, cx = int(y * image.shape[0]), int(x * image.shape[1])
    out = image.copy()
    out[max(cy - half, 0) : cy + half, max(cx - half, 0) : cx + half] = FILL
    return out


# name -> fn(image, level, sign, u): level = magnitude / 10, sign = -1 or 1, u = two uniforms.
OP_SET: dict[str, Callable[..., np.ndarray]] = {
    "auto_contrast": lambda image, level, sign, u: _auto_contrast(image),
    "equalize": lambda image, level, sign, u: _equalize(image),
    "invert": lambda image, level, sign, u: 255 - image,
    "rotate": lambda image, level, sign, u: _rotate(image, sign * level * 30),
    "posterize": lambda image, level, sign, u: _posterize(image, level),
    "solarize": lambda image, level, sign, u: _solarize(image, level),
    "color": lambda image, level, sign, u: _blend(_grey(image), image, level * 1.8 + 0.1),
    "contrast": lambda image, level, sign, u: _blend(float(np.floor(_grey(image).mean())), image, level * 1.8 + 0.1),
    "brightness": lambda image, level, sign, u: _blend(0.0, image, level * 1.8 + 0.1),
    "sharpness": lambda image, level, sign, u: _sharpness(image, level * 1.8 + 0.1),
    "shear_x": lambda image, level, sign, u: _warp(image, [[1, sign * level * 0.3, 0], [0, 1, 0]]),
    "shear_y": lambda image, level, sign, u: _warp(image, [[1, 0, 0], [sign * level * 0.3, 1, 0]]),
    "translate_x": lambda image, level, sign, u: _warp(image, [[1, 0, sign * level * TRANSLATE], [0, 1, 0]]),
    "translate_y": lambda image, level, sign, u: _warp(image, [[1, 0, 0], [0, 1, sign * level * TRANSLATE]]),
    "cutout": lambda image, level, sign, u: _cutout(image, int(level * CUTOUT_HALF_SIDE), u[0], u[1]),
    "solarize_add": lambda image, level, sign, u: _solarize_add(image, level),
}


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """``num_layers`` random ops of the sixteen in ``OP_SET``, each at ``magnitude``.

    Ops: auto_contrast, equalize, invert, rotate (up to 30 degrees), posterize (to
    4 m/10 bits), solarize (above 256 m/10), color, contrast, brightness, sharpness
    (factor 1.8 m/10 + 0.1), shear_x, shear_y (0.3 m/10), translate_x, translate_y
    (100 m/10 pixels), cutout (side 80 m/10 pixels), solarize_add (110 m/10 below
    128). Rotations, shears and translations take either sign; what they uncover, and
    cutout, is grey 128. Every chosen op is applied.

    Attributes:
      num_layers: ops an image (``l`` in AugReg: 0 or 2).
      magnitude: on a scale where 10 is the stated strength and more is allowed
        (``m`` in AugReg: 0, 10, 15 or 20). Lengths are in pixels and made for images
        of about 224; not for very small ones.

    Reference: Cubuk et al., "RandAugment" (arXiv:1909.13719); Steiner et al., "How
    to train your ViT?" (arXiv:2106.10270), section 3.4. We differ from the published
    TensorFlow code in ``contrast``: it blends with the number of pixels / 256 in
    place of the mean grey that the paper means; we take the mean.
    """

    num_layers: int = 2
    magnitude: float = 10.0

    @property
    def uniforms(self) -> int:
        return 4 * self.num_layers

    def __call__(self, image: np.ndarray, u: Any) -> np.ndarray:
        ops = list(OP_SET.values())
        for layer in range(self.num_layers):
            choice, sign, y, x = u[4 * layer : 4 * layer + 4]
            image = ops[int(choice * len(ops))](image, self.magnitude / 10, 1 if sign < 0.5 else -1, (y, x))
        return image
