"""Ops on one image: ``OPS``. uint8 [H, W, C] in and out, on the host.

An op is a frozen dataclass with
  ``uniforms``: how many random numbers of [0, 1) it consumes, and
  ``__call__(image, u)``, a pure function of the image and these numbers (float64 [uniforms]);
and, where it can, ``batch(images, u)`` on uint8 [B, H, W, C] with u float64 [B, uniforms],
which may write into ``images`` and gives exactly what ``__call__`` gives one by one.

``size`` is a side, (height, width), or None: a recipe fills in its ``data.image_size``.
"""

import dataclasses
import functools
import math
import threading
from typing import Any, Literal

import numpy as np

from vitax.core.errors import UserError
from vitax.data import image_files
from vitax.data.randaugment import RandAugment

Method = Literal["bilinear", "bilinear_antialias", "bicubic", "bicubic_antialias", "nearest", "area"]
Box = tuple[int, int, int, int]  # top, left, height, width


@functools.cache
def _cv2() -> Any:
    import cv2

    cv2.setNumThreads(0)  # the pipeline's threads are the parallelism
    return cv2


def _height_width(size: int | tuple[int, int] | None, op: str) -> tuple[int, int]:
    if size is None:
        raise UserError(f"{op}: size is not set. Give size=224 or size=(height, width), or set data.image_size.")
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def resized(image: np.ndarray, height: int, width: int, method: Method = "bilinear") -> np.ndarray:
    """Resizes uint8 [H, W, C].

    ``bilinear`` is what ``tf.image.resize`` does by default: half-pixel centres, two
    taps, aliased when it shrinks (within a rounding of it; cv2.INTER_LINEAR). The
    ``_antialias`` methods widen the filter when shrinking (PIL; tf's antialias=True).
    """
    if image.shape[:2] == (height, width):
        return image
    if method in ("bilinear_antialias", "bicubic_antialias"):
        from PIL import Image

        resample = Image.Resampling.BILINEAR if method == "bilinear_antialias" else Image.Resampling.BICUBIC
        grey = image.shape[-1] == 1
        out = np.asarray(Image.fromarray(image[..., 0] if grey else image).resize((width, height), resample))
        return out[..., None] if grey else out
    cv2 = _cv2()
    flags = {
        "bilinear": cv2.INTER_LINEAR,
        "bicubic": cv2.INTER_CUBIC,
        "nearest": cv2.INTER_NEAREST_EXACT,
        "area": cv2.INTER_AREA,
    }
    if method not in flags:
        raise UserError(f'resize: unknown method "{method}". Valid: {", ".join(Method.__args__)}.')  # type: ignore[attr-defined]
    out = cv2.resize(image, (width, height), interpolation=flags[method])
    return out[..., None] if out.ndim == 2 else out  # cv2 drops a single channel


def _each(op: Any, images: np.ndarray, u: np.ndarray) -> np.ndarray:
    """``batch`` for ops on small images, where a loop costs less than handing out tasks."""
    return np.stack([op(image, row) for image, row in zip(images, u)])


@dataclasses.dataclass(frozen=True)
class Decode:
    """Decodes JPEG, PNG and WebP (``image_files``); images that are arrays pass.

    Attributes:
      channels: 1 (grey) or 3 (RGB) of the result, for arrays too; None keeps arrays as
        they are and decodes to 3.
    """

    channels: int | None = None
    uniforms = 0

    def __call__(self, image: bytes | np.ndarray, u: Any = None) -> np.ndarray:
        if isinstance(image, np.ndarray):
            return image if self.channels is None else image_files.with_channels(image, self.channels)
        return image_files.decode_image(image, self.channels or 3)

    def batch(self, images: np.ndarray, u: np.ndarray) -> np.ndarray:
        return images if self.channels is None else image_files.with_channels(images, self.channels)


@dataclasses.dataclass(frozen=True)
class InceptionCrop:
    """A random part of the image, resized: the augmentation of Inception and of ViT.

    The aspect ratio is uniform in its range, then the height uniform over what the
    areas, the ratio and the image allow, then the place uniform.

    Attributes:
      size: side or (height, width) of the result.
      area_min: smallest area of the part, as a fraction of the image's.
      area_max: largest.
      aspect_min: smallest ratio of width to height.
      aspect_max: largest.
      method: of the resize.

    Reference: Szegedy et al., "Going deeper with convolutions" (2015), section 6;
    the distribution is that of tf.image.sample_distorted_bounding_box (height, not
    area, is uniform). Where no part of the wanted ratio has the least area, the
    largest that fits is taken; TensorFlow draws again and finally takes the whole.
    """

    size: int | tuple[int, int] | None = None
    area_min: float = 0.05
    area_max: float = 1.0
    aspect_min: float = 3 / 4
    aspect_max: float = 4 / 3
    method: Method = "bilinear"
    uniforms = 4

    def box(self, height: int, width: int, u: np.ndarray) -> Box:
        """The part to take of an image of this size."""
        ratio = self.aspect_min + float(u[0]) * (self.aspect_max - self.aspect_min)
        highest = min(round(math.sqrt(self.area_max * height * width / ratio)), height, int((width + 0.499) / ratio))
        lowest = min(math.ceil(math.sqrt(self.area_min * height * width / ratio)), highest)
        h = max(lowest + int(float(u[1]) * (highest - lowest + 1)), 1)
        w = min(max(round(h * ratio), 1), width)
        return int(float(u[2]) * (height - h + 1)), int(float(u[3]) * (width - w + 1)), h, w

    def finish(self, image: np.ndarray) -> np.ndarray:
        return resized(image, *_height_width(self.size, "inception_crop"), self.method)

    def __call__(self, image: np.ndarray, u: np.ndarray) -> np.ndarray:
        top, left, h, w = self.box(image.shape[0], image.shape[1], u)
        return self.finish(image[top : top + h, left : left + w])


@dataclasses.dataclass(frozen=True)
class Resize:
    """Resizes to ``size``, whatever the aspect ratio.

    Attributes:
      size: side or (height, width).
      method: ``bilinear`` equals tf.image.resize's default; see ``resized``.
    """

    size: int | tuple[int, int] | None = None
    method: Method = "bilinear"
    uniforms = 0

    def __call__(self, image: np.ndarray, u: Any = None) -> np.ndarray:
        return resized(image, *_height_width(self.size, "resize"), self.method)

    def batch(self, images: np.ndarray, u: np.ndarray) -> np.ndarray:
        if images.shape[1:3] == _height_width(self.size, "resize"):
            return images
        return _each(self, images, u)


@dataclasses.dataclass(frozen=True)
class ResizeSmall:
    """Resizes so that the smaller side becomes ``smaller``, keeping the aspect ratio.

    Attributes:
      smaller: pixels of the smaller side of the result (256 before a 224 crop is usual).
      method: see ``resized``.
    """

    smaller: int
    method: Method = "bilinear"
    uniforms = 0

    def __call__(self, image: np.ndarray, u: Any = None) -> np.ndarray:
        height, width = image.shape[:2]
        scale = self.smaller / min(height, width)
        return resized(image, max(round(height * scale), 1), max(round(width * scale), 1), self.method)

    def batch(self, images: np.ndarray, u: np.ndarray) -> np.ndarray:
        return images if min(images.shape[1:3]) == self.smaller else _each(self, images, u)


@dataclasses.dataclass(frozen=True)
class CentralCrop:
    """The middle of the image.

    Attributes:
      size: side or (height, width); the image must be at least that large.
    """

    size: int | tuple[int, int] | None = None
    uniforms = 0

    def box(self, height: int, width: int, u: Any = None) -> Box:
        h, w = _height_width(self.size, "central_crop")
        if h > height or w > width:
            raise UserError(
                f"central_crop: cannot take {h}x{w} of an image of {height}x{width}. "
                "Put a resize_small (smaller >= size) or a resize op before it."
            )
        return (height - h) // 2, (width - w) // 2, h, w

    def finish(self, image: np.ndarray) -> np.ndarray:
        return image

    def __call__(self, image: np.ndarray, u: Any = None) -> np.ndarray:
        top, left, h, w = self.box(*image.shape[:2])
        return image[top : top + h, left : left + w]

    def batch(self, images: np.ndarray, u: np.ndarray) -> np.ndarray:
        top, left, h, w = self.box(*images.shape[1:3])
        return images[:, top : top + h, left : left + w]


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """A random place of ``size`` in the image after a border of zeros: the augmentation of CIFAR.

    Attributes:
      size: side or (height, width).
      padding: pixels of zeros added on every side first.
    """

    size: int | tuple[int, int] | None = None
    padding: int = 0
    uniforms = 2

    def _room(self, height: int, width: int) -> tuple[int, int, int, int]:
        h, w = _height_width(self.size, "random_crop")
        down, right = height + 2 * self.padding - h, width + 2 * self.padding - w
        if down < 0 or right < 0:
            raise UserError(
                f"random_crop: cannot take {h}x{w} of an image of {height}x{width} with padding={self.padding}. "
                "Put a resize or resize_small op before it, or pad more."
            )
        return h, w, down, right

    def __call__(self, image: np.ndarray, u: np.ndarray) -> np.ndarray:
        h, w, down, right = self._room(*image.shape[:2])
        p = self.padding
        if p:
            image = np.pad(image, ((p, p), (p, p), (0, 0)))
        top, left = int(u[0] * (down + 1)), int(u[1] * (right + 1))
        return image[top : top + h, left : left + w]

    def batch(self, images: np.ndarray, u: np.ndarray) -> np.ndarray:
        h, w, down, right = self._room(*images.shape[1:3])
        p = self.padding
        padded = np.pad(images, ((0, 0), (p, p), (p, p), (0, 0))) if p else images
        tops, lefts = (u * (down + 1, right + 1)).astype(np.int64).T
        # A view of every window, from which one an example is copied: one pass, no index arrays.
        windows = np.lib.stride_tricks.sliding_window_view(padded, (h, w), axis=(1, 2))
        return windows[np.arange(len(images)), tops, lefts].transpose(0, 2, 3, 1)


@dataclasses.dataclass(frozen=True)
class Flip:
    """Mirrors left and right.

    Attributes:
      probability: of mirroring.
    """

    probability: float = 0.5
    uniforms = 1

    def __call__(self, image: np.ndarray, u: np.ndarray) -> np.ndarray:
        return image[:, ::-1] if u[0] < self.probability else image

    def batch(self, images: np.ndarray, u: np.ndarray) -> np.ndarray:
        chosen = np.flatnonzero(u[:, 0] < self.probability)
        if len(chosen):
            # All rows as one tall image: cv2 mirrors three channels 14 times as fast as NumPy.
            part = images[chosen]
            images[chosen] = _cv2().flip(part.reshape(-1, *part.shape[2:]), 1).reshape(part.shape)
        return images


@dataclasses.dataclass(frozen=True)
class DecodeThen:
    """``decode`` and the next op as one: the same pixels, with less work.

    Decodes into memory that is used again (fresh pages cost a fifth of the decoding)
    and, where the next op only takes a part, not the rows below that part.
    """

    decode: Decode
    then: Any

    @property
    def uniforms(self) -> int:
        return self.then.uniforms

    def __call__(self, image: bytes | np.ndarray, u: np.ndarray) -> np.ndarray:
        if isinstance(image, np.ndarray):
            return self.then(self.decode(image), u)
        header = image_files.jpeg_header(image)
        if header is None or header.orientation != 1:
            return self.then(self.decode(image), u)
        channels = self.decode.channels or 3
        buffer = _scratch(header.height * header.width * channels)
        if hasattr(self.then, "box"):
            top, left, h, w = self.then.box(header.height, header.width, u)
            rows = image_files.decode_rows(image, header, top + h, channels, buffer)
            if rows is None:
                rows = image_files.decode_image(image, channels, header, buffer)
            out = self.then.finish(rows[top : top + h, left : left + w])
        else:
            out = self.then(image_files.decode_image(image, channels, header, buffer), u)
        return out.copy() if np.may_share_memory(out, buffer) else out


_local = threading.local()


def _scratch(num_bytes: int) -> np.ndarray:
    """This thread's buffer, of at least this many bytes."""
    buffer = getattr(_local, "buffer", None)
    if buffer is None or buffer.size < num_bytes:
        buffer = _local.buffer = np.empty(num_bytes, np.uint8)
    return buffer


OPS: dict[str, Any] = {
    "central_crop": CentralCrop,
    "decode": Decode,
    "flip": Flip,
    "inception_crop": InceptionCrop,
    "randaugment": RandAugment,
    "random_crop": RandomCrop,
    "resize": Resize,
    "resize_small": ResizeSmall,
}
