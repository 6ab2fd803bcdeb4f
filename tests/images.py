"""Image files of every kind that users have, written with PIL."""

import io
import pathlib

import numpy as np
from PIL import Image


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def of_every_kind(seed: int = 0) -> dict[str, bytes]:
    """File name -> content: formats, modes, rotations and odd sizes."""
    rng = np.random.default_rng(seed)

    def noise(height: int, width: int, channels: int = 3) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (height, width, channels), np.uint8))

    rotated = Image.Exif()
    rotated[0x0112] = 6
    grey = noise(20, 31).convert("L")
    palette = noise(24, 24).convert("P", palette=Image.Palette.ADAPTIVE)
    return {
        "rgb.jpg": encode(noise(40, 30), "jpeg"),
        "grey.jpg": encode(grey, "jpeg"),
        "cmyk.jpg": encode(noise(33, 20).convert("CMYK"), "jpeg"),
        "progressive.jpeg": encode(noise(50, 20), "jpeg", progressive=True),
        "rotated.jpg": encode(noise(16, 48), "jpeg", exif=rotated),
        "rotated.png": encode(noise(16, 48), "png", exif=rotated),
        "rgb.png": encode(noise(8, 8), "png"),
        "rgba.png": encode(noise(28, 28, 4), "png"),
        "grey-alpha.png": encode(grey.convert("LA"), "png"),
        "palette.png": encode(palette, "png"),
        "transparent-palette.png": encode(palette, "png", transparency=0),
        "16-bit.png": encode(Image.fromarray(rng.integers(0, 65536, (19, 17), np.uint16)), "png"),
        "1-bit.png": encode(grey.convert("1"), "png"),
        "lossy.webp": encode(noise(31, 32), "webp"),
        "lossless-alpha.webp": encode(noise(32, 31, 4), "webp", lossless=True),
        "odd-29x28.png": encode(noise(28, 29), "png"),
        "odd-27x29.jpg": encode(noise(29, 27), "jpeg"),
        "one-pixel.png": encode(noise(1, 1), "png"),
        "one-pixel.jpg": encode(noise(1, 1), "jpeg"),
        "one-row.webp": encode(noise(1, 57), "webp"),
        "png-called.JPG": encode(noise(9, 9), "png"),
        "space in näme.png": encode(noise(9, 9), "png"),
    }


def write(folder: pathlib.Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def shapes(root: pathlib.Path, count: int, classes=("bars", "blob", "stripes"), seed: int = 0) -> pathlib.Path:
    """Three classes that are easy to tell apart, grey 28 x 28, under noise: ``root/CLASS/NUMBER.png``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:28, 0:28]
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            dy, dx = rng.integers(0, 4, 2)
            pattern = [(x + dx) // 4 % 2, ((x - 12 - dx) ** 2 + (y - 12 - dy) ** 2 < 60), (y + dy) // 4 % 2][label]
            image = np.clip(160 * pattern + rng.normal(40, 20, (28, 28)), 0, 255).astype(np.uint8)
            (root / name / f"{i:03d}.png").write_bytes(encode(Image.fromarray(image), "png"))
    return root
