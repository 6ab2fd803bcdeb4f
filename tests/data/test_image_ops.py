"""Ops: parity with cv2, PIL and plain NumPy, the laws all ops keep, their errors."""

import io

import numpy as np
import pytest
from PIL import Image

from vitax.core.errors import UserError
from vitax.data.image_ops import (
    OPS,
    CentralCrop,
    Decode,
    DecodeThen,
    Flip,
    InceptionCrop,
    RandomCrop,
    Resize,
    ResizeSmall,
)
from vitax.data.randaugment import OP_SET, RandAugment

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (40, 56, 3), np.uint8)
EVERY_OP = [
    Decode(),
    Decode(channels=1),
    InceptionCrop(24),
    InceptionCrop((20, 30), method="bilinear_antialias"),
    Resize(24),
    Resize((20, 30), method="bicubic"),
    ResizeSmall(30),
    CentralCrop(24),
    CentralCrop((40, 56)),
    RandomCrop(24),
    RandomCrop((40, 56), padding=4),
    Flip(),
    RandAugment(2, 10),
]


def reference_resize(image: np.ndarray, height: int, width: int, antialias: bool) -> np.ndarray:
    """Bilinear with half-pixel centres, written from the definition, in float64."""

    def weights(size_in: int, size_out: int) -> np.ndarray:
        scale = size_in / size_out
        width = max(scale, 1.0) if antialias else 1.0
        centers = (np.arange(size_out)[:, None] + 0.5) * scale - 0.5
        if not antialias:
            centers = centers.clip(0, size_in - 1)
        w = np.maximum(0, 1 - np.abs(np.arange(size_in) - centers) / width)
        return w / w.sum(1, keepdims=True)

    y, x = weights(image.shape[0], height), weights(image.shape[1], width)
    return np.einsum("yh,xw,hwc->yxc", y, x, image.astype(np.float64))


@pytest.mark.parametrize("size", [(17, 23), (80, 100), (40, 28), (13, 90)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("method", ["bilinear", "bilinear_antialias"])
def test_resize_is_bilinear_to_a_rounding(size, channels, method):
    image = NOISE[..., :channels]
    got = Resize(size, method=method)(image)
    expected = reference_resize(image, *size, antialias=method.endswith("antialias"))
    assert (got.dtype, got.shape) == (np.uint8, expected.shape)
    assert np.abs(got - expected).max() <= 1.01


@pytest.mark.parametrize("method", ["bicubic", "bicubic_antialias", "nearest", "area"])
def test_other_methods(method):
    flat = Resize((9, 70), method=method)(np.full((40, 56, 1), 77, np.uint8))
    assert flat.shape == (9, 70, 1)
    assert (flat == 77).all()
    with pytest.raises(UserError, match='unknown method "cubic"'):
        Resize(8, method="cubic")(NOISE)


def test_resize_small_keeps_the_ratio():
    assert ResizeSmall(20)(NOISE).shape == (20, 28, 3)
    assert ResizeSmall(60)(NOISE.transpose(1, 0, 2)).shape == (84, 60, 3)


@pytest.mark.parametrize("op", EVERY_OP, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_op_is_pure_and_its_batch_form_is_the_same(op, channels):
    images = RNG.integers(0, 256, (9, 40, 56, channels), np.uint8)
    before, u = images.copy(), RNG.random((9, op.uniforms))
    one_by_one = np.stack([op(image, row) for image, row in zip(images, u)])
    np.testing.assert_array_equal(images, before)
    assert one_by_one.dtype == np.uint8
    assert one_by_one.ndim == 4
    if hasattr(op, "batch"):
        np.testing.assert_array_equal(op.batch(images.copy(), u), one_by_one)


@pytest.mark.parametrize("edge", [0.0, 1 - 2.0**-53])
def test_extreme_uniforms(edge):
    for op in EVERY_OP:
        for shape in ((40, 56, 3), (200, 30, 3), (30, 300, 3)):
            if not isinstance(op, CentralCrop | RandomCrop):
                op(np.zeros(shape, np.uint8), np.full(op.uniforms, edge))
    image = np.arange(40, dtype=np.uint8)[:, None, None] * np.ones((1, 56, 1), np.uint8)
    top = 0 if edge == 0 else 16
    assert RandomCrop(24)(image, np.full(2, edge))[0, 0, 0] == top


def test_inception_crop_keeps_its_ranges():
    op = InceptionCrop(8)
    for height, width in ((375, 500), (500, 375), (64, 64)):
        boxes = np.array([op.box(height, width, u) for u in RNG.random((4000, 4))])
        top, left, h, w = boxes.T
        assert (top >= 0).all()
        assert (left >= 0).all()
        assert (top + h <= height).all()
        assert (left + w <= width).all()
        area = h * w / (height * width)
        assert area.min() > 0.05 * 0.9
        assert area.max() > 0.8
        ratio = w / h
        assert ratio.min() >= 0.75 * 0.9
        assert ratio.max() <= 4 / 3 * 1.1
        assert (top + h == height).any()
        assert (top == 0).any()
    top, left, h, w = op.box(10, 1000, np.full(4, 0.5))  # no part of this ratio has 5 % of the area
    assert h == 10


def test_random_crop_is_a_window_of_the_padded_image():
    op = RandomCrop((40, 56), padding=4)
    padded = np.pad(NOISE, ((4, 4), (4, 4), (0, 0)))
    seen = set()
    for u in RNG.random((300, 2)):
        out = op(NOISE, u)
        top, left = int(u[0] * 9), int(u[1] * 9)
        seen.add((top, left))
        np.testing.assert_array_equal(out, padded[top : top + 40, left : left + 56])
    assert len(seen) > 70


def test_flip_probability():
    u = np.linspace(0, 0.999, 1000)[:, None]
    images = np.tile(np.array([0, 1], np.uint8).reshape(1, 1, 2, 1), (1000, 1, 1, 1))
    for probability in (0.0, 0.25, 1.0):
        flipped = Flip(probability).batch(images.copy(), u)[:, 0, 0, 0].sum()
        assert abs(flipped - 1000 * probability) <= 1


def test_errors():
    for op in (Resize(), CentralCrop(), RandomCrop(), InceptionCrop()):
        with pytest.raises(UserError, match=r"size is not set.*data\.image_size"):
            op(NOISE, np.zeros(4))
    with pytest.raises(UserError, match=r"24x60 of an image of 40x56\. .*resize_small"):
        CentralCrop((24, 60))(NOISE)
    with pytest.raises(UserError, match="50x50 of an image of 40x56 with padding=2"):
        RandomCrop(50, padding=2)(NOISE, np.zeros(2))


@pytest.mark.parametrize("then", [InceptionCrop(24), CentralCrop(24), Resize(24), ResizeSmall(24), Flip()], ids=str)
@pytest.mark.parametrize("kind", ["jpeg", "progressive", "png", "rotated", "grey"])
@pytest.mark.parametrize("channels", [1, 3])
def test_decoding_a_part_gives_the_same_pixels(then, kind, channels):
    image = Image.fromarray(RNG.integers(0, 256, (150, 120, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"progressive": {"progressive": True}, "rotated": {"exif": exif}}.get(kind, {})
    file = io.BytesIO()
    (image.convert("L") if kind == "grey" else image).save(file, "png" if kind == "png" else "jpeg", **options)
    decode, data = Decode(channels=channels), file.getvalue()
    results, expected = [], []
    for u in RNG.random((12, then.uniforms)):
        results.append(DecodeThen(decode, then)(data, u))
        expected.append(then(decode(data), u))
    other = io.BytesIO()
    Image.new("RGB", (120, 150)).save(other, "jpeg")
    DecodeThen(decode, Flip())(other.getvalue(), np.zeros(1))
    for a, b in zip(results, expected):  # afterwards: no result may lie in memory used again
        np.testing.assert_array_equal(a, b)


def test_randaugment_known_answers():
    def apply(name, image=NOISE, level=1.0, sign=1, u=(0.5, 0.5)):
        return OP_SET[name](image, level, sign, u)

    assert len(OP_SET) == 16
    np.testing.assert_array_equal(apply("invert"), 255 - NOISE)
    np.testing.assert_array_equal(apply("posterize"), NOISE & 0xF0)
    np.testing.assert_array_equal(apply("solarize", level=0.5), np.where(NOISE < 128, NOISE, 255 - NOISE))
    added = np.clip(NOISE.astype(int) + 110, 0, 255)
    np.testing.assert_array_equal(apply("solarize_add"), np.where(NOISE < 128, added, NOISE))
    for name in ("color", "contrast", "brightness", "sharpness"):  # factor 1 is the identity
        np.testing.assert_array_equal(apply(name, level=0.5), NOISE)
    assert apply("brightness", level=1.0).mean() > NOISE.mean() > apply("brightness", level=0.1).mean()
    assert np.ptp(apply("color", level=-1 / 18), axis=-1).max() == 0  # factor 0: grey
    narrow = (NOISE // 4 + 50).astype(np.uint8)
    stretched = apply("auto_contrast", narrow)
    assert (stretched.min(), stretched.max()) == (0, 255)
    from PIL import ImageOps

    np.testing.assert_array_equal(apply("equalize", narrow), np.asarray(ImageOps.equalize(Image.fromarray(narrow))))
    moved = apply("translate_x", level=0.05)
    np.testing.assert_array_equal(moved[:, :-5], NOISE[:, 5:])
    assert (moved[:, -5:] == 128).all()
    np.testing.assert_array_equal(apply("translate_y", level=0.05, sign=-1)[5:], NOISE[:-5])
    square = NOISE[:, :40]
    np.testing.assert_array_equal(apply("rotate", square, level=3.0), np.rot90(square))
    np.testing.assert_array_equal(apply("shear_x")[0], NOISE[0])
    assert (apply("cutout", level=0.25) == 128).all(-1).sum() >= 400


def test_randaugment_uses_every_op_and_only_its_numbers():
    op = RandAugment(num_layers=1, magnitude=9)
    choices = (np.arange(16) + 0.5) / 16
    image = RNG.integers(40, 200, (120, 160, 3), np.uint8)
    results = {op(image, np.array([c, 0.2, 0.3, 0.4])).tobytes() for c in choices}
    assert len(results) == 16
    assert RandAugment(0, 10).uniforms == 0
    np.testing.assert_array_equal(RandAugment(0, 10)(NOISE, np.zeros(0)), NOISE)
    assert (RandAugment(2, 9)(NOISE, np.full(8, 0.2)) != NOISE).any()


def test_every_op_is_in_the_table():
    assert {type(op) for op in EVERY_OP} == set(OPS.values())
