"""Encoded images to arrays: JPEG by libjpeg-turbo (simplejpeg), everything else by PIL.

EXIF orientation is applied, CMYK and palettes are converted, alpha is dropped and
16-bit grey is scaled to 8 bits. What differs from ``tf.image.decode_jpeg``, which
published ImageNet pipelines use: that one ignores EXIF orientation.
"""

import io
import os
import pathlib
import struct
from typing import Any, NamedTuple

import numpy as np

from vitax.core.errors import UserError

_ORIENTATION = 0x0112


class JpegHeader(NamedTuple):
    """What the markers before the first scan say.

    Attributes:
      height, width: of the pixels as stored, before EXIF orientation.
      components: 1 grey, 3 colour, 4 CMYK.
      orientation: of EXIF, 1 = as stored.
      height_at: offset of the two bytes that hold the height, or None where the
        file's rows cannot be cut short (see ``decode_rows``).
    """

    height: int
    width: int
    components: int
    orientation: int
    height_at: int | None


def jpeg_header(data: bytes) -> JpegHeader | None:
    """Reads the markers of a JPEG (about 5 us); None where the data are not a plain JPEG."""
    if data[:2] != b"\xff\xd8":
        return None
    at, orientation, frame = 2, 1, None
    try:
        while True:
            if data[at] != 0xFF:
                return None
            marker = data[at + 1]
            if marker == 0xFF:  # a fill byte
                at += 1
                continue
            length = (data[at + 2] << 8) | data[at + 3]
            if marker == 0xDA:  # start of scan: the rest is image data
                break
            if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
                orientation = _exif_orientation(data[at + 4 : at + 2 + length])
            elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                height, width, components = struct.unpack_from(">HHB", data, at + 5)
                frame = (marker, at + 5, height, width, components, data[at + 11] & 15)
            at += 2 + length
    except (IndexError, struct.error):
        return None
    if frame is None:
        return None
    marker, height_at, height, width, components, vertical = frame
    # Baseline or extended Huffman in one interleaved scan, MCUs of at most 16 rows.
    cuttable = marker in (0xC0, 0xC1) and data[at + 4] == components and vertical <= 2
    return JpegHeader(height, width, components, orientation, height_at if cuttable else None)


def _exif_orientation(exif: bytes) -> int:
    from PIL import Image

    tags = Image.Exif()
    try:
        tags.load(exif)
        value = tags.get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block says nothing; the pixels are still good
        return 1
    return value if value in range(1, 9) else 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Applies an EXIF orientation (1..8) to [H, W, C]."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [..., 1 or 3] with the wanted number of channels (grey by the weights of ITU-R 601)."""
    if image.shape[-1] == channels:
        return image
    if image.shape[-1] == 1 and channels == 3:
        return np.repeat(image, 3, axis=-1)
    if image.shape[-1] == 3 and channels == 1:
        grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
        return np.round(grey).astype(np.uint8)[..., None]
    raise UserError(f"an image of shape {image.shape} cannot be given {channels} channels; expected 1 or 3.")


def decode_image(data: bytes, channels: int = 3, header: JpegHeader | None = None, buffer: Any = None) -> np.ndarray:
    """Decodes JPEG, PNG, WebP and whatever else PIL reads.

    Args:
      data: the encoded file.
      channels: 1 (grey) or 3 (RGB).
      header: of the JPEG, where the caller has read it already.
      buffer: writable memory of H * W * channels bytes or more that the result may use.

    Returns:
      uint8 [H, W, channels].

    Raises:
      UserError: not an image, or truncated.
    """
    header = header or jpeg_header(data)
    if header is not None and header.components in (1, 3):
        import simplejpeg

        try:
            image = simplejpeg.decode_jpeg(data, colorspace="GRAY" if channels == 1 else "RGB", buffer=buffer)
            return image if header.orientation == 1 else _upright(image, header.orientation)
        except ValueError:
            pass  # PIL is more lenient with oddities and still refuses a truncated file
    return _decode_pil(data, channels)


def decode_rows(data: bytes, header: JpegHeader, rows: int, channels: int, buffer: Any) -> np.ndarray | None:
    """Decodes at least the first ``rows`` rows of a JPEG, the same pixels as of the whole.

    A baseline JPEG whose header states a smaller height is decoded only so far, which
    saves the entropy decoding and the inverse DCT of all that lies below a crop.

    Args:
      data: the encoded file.
      header: of it.
      rows: how many are needed.
      channels: 1 or 3.
      buffer: writable memory of height * width * channels bytes or more; the result lies in it.

    Returns:
      uint8 [rows or a few more, W, channels]; None where this file must be decoded whole.

    Raises:
      UserError: truncated.
    """
    # One block of 16 more: chroma of the last row wanted is interpolated with the next.
    height = -(-rows // 16) * 16 + 16
    if header.height_at is None or header.orientation != 1 or header.components not in (1, 3):
        return None
    if height >= header.height:
        return None
    import simplejpeg

    cut = bytearray(data)
    cut[header.height_at : header.height_at + 2] = height.to_bytes(2, "big")
    try:
        return simplejpeg.decode_jpeg(cut, colorspace="GRAY" if channels == 1 else "RGB", buffer=buffer)
    except ValueError as error:
        # The rows left over, and nothing else, are reported after the image is complete.
        if "extraneous bytes before marker" in str(error):
            return np.frombuffer(buffer, np.uint8, height * header.width * channels).reshape(height, -1, channels)
        return None


def _decode_pil(data: bytes, channels: int) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16 bits a pixel; PIL's own conversion clips at 255
                wide = np.asarray(image).astype(np.int64)
                return with_channels((wide.clip(0, 65535) >> 8).astype(np.uint8)[..., None], channels)
            array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error ...
        raise UserError(
            f"not a readable image ({type(error).__name__}): {len(data):,} bytes that start with {data[:4].hex()}."
        ) from error
    return array[..., None] if channels == 1 else array


def load_image(path: str | os.PathLike, channels: int = 3) -> np.ndarray:
    """Reads an image file: uint8 [H, W, channels].

    Raises:
      UserError: absent, unreadable or not an image; names the file.
    """
    file = pathlib.Path(path).expanduser()
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}), looked from {os.getcwd()}.") from error
    try:
        return decode_image(data, channels)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
