"""Every image format, and that rows cut short are the rows of the whole."""

import io

import numpy as np
import pytest
from PIL import Image

from vitax.core.errors import UserError
from vitax.data.image_files import decode_image, decode_rows, jpeg_header, load_image, with_channels


def picture(height: int = 75, width: int = 101) -> np.ndarray:
    """A smooth colourful image, so that lossy codecs stay near it."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.round(np.stack([x, y, 0.5 + 0.4 * np.sin(5 * x + 3 * y)], -1) * 255).clip(0, 255).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


RGB = picture()
IMAGE = Image.fromarray(RGB)
GREY = np.asarray(IMAGE.convert("L"))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (encode(IMAGE, "png"), 0),
        (encode(IMAGE.convert("RGBA"), "png"), 0),
        (encode(IMAGE, "webp", lossless=True), 0),
        (encode(IMAGE, "webp", quality=95), 12),
        (encode(IMAGE, "jpeg", quality=98), 5),
        (encode(IMAGE, "jpeg", quality=98, progressive=True), 5),
        (encode(IMAGE.convert("CMYK"), "jpeg", quality=98), 8),
        (encode(IMAGE.convert("P", palette=Image.Palette.ADAPTIVE, colors=256), "png"), 60),
        (encode(IMAGE, "bmp"), 0),
    ],
    ids=["png", "rgba", "webp-lossless", "webp", "jpeg", "progressive", "cmyk", "palette", "bmp"],
)
def test_colour_formats(data, error):
    image = decode_image(data, 3)
    assert (image.dtype, image.shape) == (np.uint8, RGB.shape)
    assert np.abs(image.astype(int) - RGB).max() <= error
    grey = decode_image(data, 1)
    assert grey.shape == (*RGB.shape[:2], 1)
    assert np.abs(grey[..., 0].astype(int) - GREY).max() <= max(error, 1)


@pytest.mark.parametrize(
    "data",
    [
        encode(Image.fromarray(GREY), "png"),
        encode(Image.fromarray(GREY.astype(np.uint16) * 256 + (255 - GREY)), "png"),
        encode(Image.fromarray(GREY), "jpeg", quality=98),
        encode(Image.fromarray(np.stack([GREY, GREY], -1), "LA"), "png"),
    ],
    ids=["png", "png-16", "jpeg", "grey-alpha"],
)
def test_grey_formats(data):
    for channels in (1, 3):
        image = decode_image(data, channels)
        assert image.shape == (*GREY.shape, channels)
        assert np.abs(image.astype(int) - GREY[..., None]).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_exif_orientation(kind, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(IMAGE, kind, exif=exif, **({"quality": 95} if kind == "jpeg" else {}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    image = decode_image(data, 3)
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("restart", [0, 1])
def test_rows_cut_short_are_the_rows_of_the_whole(subsampling, restart):
    noise = np.random.default_rng(0).integers(0, 256, (150, 90, 3), np.uint8)
    data = encode(Image.fromarray(noise), "jpeg", quality=80, subsampling=subsampling, restart_marker_rows=restart)
    header = jpeg_header(data)
    buffer = np.empty(150 * 90 * 3, np.uint8)
    for channels in (1, 3):
        whole, shortened = decode_image(data, channels), 0
        for rows in range(1, 151):
            part = decode_rows(data, header, rows, channels, buffer)
            if part is not None:
                shortened += 1
                np.testing.assert_array_equal(part[:rows], whole[:rows])
        assert shortened == 128  # all but those within a block of the bottom


def test_what_cannot_be_cut_short_says_so():
    exif = Image.Exif()
    exif[0x0112] = 6
    big = Image.fromarray(picture(150, 90))
    for data in (encode(big, "jpeg", progressive=True), encode(big, "jpeg", exif=exif)):
        assert decode_rows(data, jpeg_header(data), 8, 3, np.empty(150 * 90 * 3, np.uint8)) is None
    assert jpeg_header(encode(big, "png")) is None
    assert jpeg_header(b"\xff\xd8\xff") is None
    header = jpeg_header(encode(big, "jpeg"))
    assert (header.height, header.width, header.components, header.orientation) == (150, 90, 3, 1)


def test_bad_files_are_named(tmp_path):
    data = encode(IMAGE, "jpeg")
    for name, content in (("cut.jpg", data[: len(data) // 2]), ("text.jpg", b"hello"), ("empty.png", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: not a readable image"):
            load_image(tmp_path / name)
    with pytest.raises(UserError, match=r"cannot read .*absent\.jpg .*looked from"):
        load_image(tmp_path / "absent.jpg")


def test_load_image(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encode(IMAGE, "png"))
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), RGB)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_image("~/a.png", channels=1).shape == (*RGB.shape[:2], 1)


def test_channels():
    assert (with_channels(GREY[..., None], 3) == GREY[..., None]).all()
    assert np.abs(with_channels(RGB, 1)[..., 0].astype(int) - GREY).max() <= 1
    with pytest.raises(UserError, match="expected 1 or 3"):
        with_channels(np.zeros((2, 2, 4), np.uint8), 3)
