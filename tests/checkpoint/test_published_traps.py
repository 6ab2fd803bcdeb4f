"""What goes wrong with published ViTs elsewhere, a test each.

Files are written out by ``google_files``, name by name.
"""

import json

import ml_dtypes
import numpy as np
import pytest

from tests.checkpoint.google_files import (
    CLASSES,
    GRID,
    LINEN,
    PATCH,
    POSITIONS,
    SIZE,
    WIDTH,
    big_vision,
    original,
    save,
    scanned,
)
from tests.published import FILES, apply, error
from vitax.__main__ import main
from vitax.checkpoint.names import google
from vitax.core.errors import UserError
from vitax.models.vit import ViT
from vitax.weights import reading
from vitax.weights.fitting import Fit

IMAGE = np.random.default_rng(9).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)


def logits(spec, image=IMAGE, **fields):
    return apply(reading.load(str(spec)).whole(), image, **fields).logits


def said(found, text):
    return any(text in line for line in found.lines)


@pytest.fixture
def plain(tmp_path):
    return save(tmp_path / "plain.npz", original())


def test_heads_that_were_published_as_zeros_are_noticed(tmp_path, plain):
    arrays = original()
    arrays["head/kernel"] = np.zeros_like(arrays["head/kernel"])
    assert said(reading.load(save(tmp_path / "zero.npz", arrays)), "head: all zeros")
    assert not said(reading.load(plain), "zeros")


def test_pre_logits_has_a_tanh_and_goes_with_the_head(tmp_path):
    spec = save(tmp_path / "i21k.npz", original(pre_logits=True))
    found = reading.load(spec).whole()
    assert found.recipe["model"]["pre_logits"] is True
    features = apply(found, IMAGE).features
    without = {k: v for k, v in original(pre_logits=True).items() if not k.startswith("pre_logits")}
    before = apply(reading.load(save(tmp_path / "without.npz", without)).whole(), IMAGE).features
    kernel, bias = (original(pre_logits=True)[f"pre_logits/{name}"] for name in ("kernel", "bias"))
    assert error(features, np.tanh(np.asarray(before) @ kernel + bias)) <= 1e-5
    from vitax.finetune import DROPPED
    from vitax.recipe import InitFrom

    assert "pre_logits" in DROPPED
    assert "^pre_logits/" in InitFrom.reset


def test_the_position_of_cls_is_added_to_cls_where_it_has_no_slot(tmp_path, plain):
    other = save(tmp_path / "bv.npz", big_vision(original(LINEN)), "params/")
    assert error(logits(other), np.asarray(logits(plain))) <= 1e-5
    found = reading.load(other)
    assert not np.any(found.params["pos_embedding"][:, 0])
    assert said(found, "a slot of zeros for cls")


def test_models_that_average_patches_take_no_slot_of_cls(plain):
    found = reading.load(plain)
    model = ViT(width=WIDTH, depth=2, mlp_dim=12, num_heads=2, patch_size=PATCH, pool="gap")
    table = Fit(model, (SIZE, SIZE), True, found.grid).position_table(
        found.params["pos_embedding"], (1, GRID * GRID, WIDTH)
    )
    np.testing.assert_array_equal(table, original()[POSITIONS][:, 1:])
    # And back: a slot of zeros, so that cls is as if it had no position.
    model = model.clone(pool="tok")
    again = Fit(model, (SIZE, SIZE), False, found.grid).position_table(table, (1, GRID * GRID + 1, WIDTH))
    np.testing.assert_array_equal(again[:, 1:], table)
    assert not np.any(again[:, 0])


def test_positions_of_google_files_are_resampled_as_scipy_does(plain):
    ndimage = pytest.importorskip("scipy.ndimage")
    found = reading.load(plain)
    assert found.positions == "corner_linear"
    model = ViT(width=WIDTH, depth=2, mlp_dim=12, num_heads=2, patch_size=PATCH)
    fit = Fit(model, (5 * PATCH, 2 * PATCH), True, found.grid, found.positions)
    table = fit.position_table(found.params["pos_embedding"], (1, 11, WIDTH))
    grid = original()[POSITIONS][0, 1:].reshape(GRID, GRID, WIDTH)
    want = ndimage.zoom(grid, (5 / GRID, 2 / GRID, 1), order=1)
    assert error(table[0, 1:].reshape(5, 2, WIDTH), want) <= 1e-6
    np.testing.assert_array_equal(table[:, 0], original()[POSITIONS][:, 0])


def test_grids_that_are_no_square(tmp_path):
    spec = save(tmp_path / "wide.npz", original(grid=(2, 5)))
    with pytest.raises(UserError, match=r"no square; give the size of the images with --config.data.image_size"):
        reading.load(spec)
    found = reading.load(spec, (2 * PATCH, 5 * PATCH)).whole()
    assert found.grid == (2, 5)
    size = f"--config.data.image_size=({2 * PATCH},{5 * PATCH})"
    assert main(["convert", spec, str(tmp_path / "again.npz"), "--to", "npz", size]) == 0
    assert main(["convert", spec, str(tmp_path / "again.npz"), "--to", "npz", "--config.model.depth=1"]) == 2
    assert apply(found, IMAGE[:, :8].repeat(2, 2)[:, :, :20]).logits.shape == (2, CLASSES)
    # The same number of patches in another arrangement is resampled, not taken as it is.
    model = ViT(width=WIDTH, depth=2, mlp_dim=12, num_heads=2, patch_size=PATCH)
    turned = Fit(model, (5 * PATCH, 2 * PATCH), True, found.grid)
    assert not np.array_equal(
        turned.position_table(found.params["pos_embedding"], (1, 11, WIDTH)), found.params["pos_embedding"]
    )


EPSILONS = {"google": 1e-6, "timm": 1e-6, "hf_vit": 1e-12, "hf_deit": 1e-12, "hf_dinov2": 1e-6}
GELUS = {"google": "tanh", "timm": "erf", "hf": "erf"}


@pytest.mark.parametrize("name", FILES)
def test_epsilon_and_gelu_come_with_the_layout(name):
    # 1e-12 and 1e-6 differ by less than any tolerance sees.
    model = reading.load(str(FILES[name])).recipe["model"]
    assert model["norm_eps"] == next(v for k, v in EPSILONS.items() if name.startswith(k))
    wanted = next(v for k, v in GELUS.items() if name.startswith(k))
    assert model["gelu"] == ("tanh" if name == "hf_vit_model" else wanted)  # its config says gelu_new


def test_hugging_face_epsilon_without_a_config(tmp_path):
    from vitax.checkpoint import weight_writer
    from vitax.checkpoint.files import read

    arrays = {**read(str(FILES["hf_vit"])).arrays, "vit.layernorm.bias": np.zeros(16, np.float32)}
    weight_writer.write(tmp_path / "alone.npz", arrays.items(), {})
    with pytest.raises(UserError, match="width 16 is no multiple of 64; put its config.json beside it"):
        reading.load(str(tmp_path / "alone.npz"))
    (tmp_path / "config.json").write_text('{"num_attention_heads": 2}')
    found = reading.load(str(tmp_path / "alone.npz"))
    assert found.recipe["model"]["norm_eps"] == 1e-12
    (tmp_path / "config.json").write_text('{"num_attention_heads": 2, "layer_norm_eps": 1e-6}')
    assert reading.load(str(tmp_path / "alone.npz")).recipe["model"]["norm_eps"] == 1e-6


def test_the_wrong_gelu_would_be_seen(plain):
    assert error(logits(plain, gelu="erf"), np.asarray(logits(plain))) > 1e-5


@pytest.mark.parametrize(
    ("name", "mean", "ops"),
    [
        ("google_vit_jax", 0.5, [("resize", "bilinear")]),
        ("google_big_vision", 0.5, [("resize_small", "bilinear"), ("central_crop", None)]),
        ("google_siglip", 0.5, [("resize", "bilinear")]),
        ("timm_tok", 0.5, [("resize_small", "bicubic_antialias"), ("central_crop", None)]),
        ("timm_deit", 0.485, [("resize_small", "bicubic_antialias"), ("central_crop", None)]),
        ("hf_vit", 0.5, [("resize", "bilinear_antialias")]),
        ("hf_dinov2", 0.485, [("resize_small", "bicubic_antialias"), ("central_crop", None)]),
    ],
)
def test_pixels_and_resize_come_with_the_layout(name, mean, ops):
    recipe = reading.load(str(FILES[name])).recipe
    assert recipe["objective"]["mean"][0] == mean
    assert recipe["objective"]["std"][0] == {0.5: 0.5, 0.485: 0.229}[mean]
    assert [(op["kind"], op.get("method")) for op in recipe["data"]["ops"][1:]] == ops


def test_crops_of_the_published_sizes():
    from vitax.checkpoint.names.layout import Constants

    def smaller(crop, size):
        return Constants(crop=crop).ops((size, size))[1]["smaller"]

    assert smaller(7 / 8, 224) == 256
    assert smaller(6 / 7, 384) == 448
    assert smaller(0.9, 224) == 248
    assert smaller(1.0, 384) == 384


def test_bfloat16_that_numpy_gives_back_without_a_type(tmp_path, plain):
    arrays = {name: x.astype(ml_dtypes.bfloat16) for name, x in original().items()}
    spec = save(tmp_path / "bf16.npz", arrays)
    with np.load(spec) as file:
        assert file["cls"].dtype == np.dtype("V2")
    found = reading.load(spec).whole()
    assert found.params["cls"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found.params["embedding/kernel"], arrays["embedding/kernel"])
    assert error(apply(found, IMAGE).logits, np.asarray(logits(plain))) < 0.05


def test_scanned_and_unrolled_trees_are_the_same_model(tmp_path):
    loop = big_vision(original(LINEN))
    one = reading.load(save(tmp_path / "loop.npz", loop, "params/")).whole()
    other = reading.load(save(tmp_path / "scan.npz", scanned(loop), "params/")).whole()
    assert other.title != one.title
    assert one.recipe == other.recipe
    assert one.params.keys() == other.params.keys()
    for name in one.params:
        np.testing.assert_array_equal(one.params[name], other.params[name])


def test_names_before_linen_and_after_and_scenics_head(tmp_path, plain):
    want = np.asarray(logits(plain))
    after = original(LINEN)
    np.testing.assert_array_equal(logits(save(tmp_path / "linen.npz", after)), want)
    np.testing.assert_array_equal(logits(save(tmp_path / "flax.npz", after, "opt/target/")), want)
    scenic = {name.replace("head/", "output_projection/"): x for name, x in after.items()}
    np.testing.assert_array_equal(logits(save(tmp_path / "scenic.npz", scenic)), want)


def test_augreg_names_spell_their_hyperparameters(tmp_path):
    name = "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_12"
    found = reading.load(save(tmp_path / f"{name}.npz", original()))
    # 0.1 is decoupled: lr times it, 1e-4, is what other code calls the weight decay.
    assert said(found, "weight decay 0.1 (times lr: 0.0001 a step)")
    assert said(found, "adapted to imagenet2012, 20k steps, lr 0.03, 12 px")
    assert google.augreg("R26_S_32-i21k_30-30ep-lr_0.001-aug_none-wd_0.03-do_0.1-sd_0.1") == {
        "model": "R26_S_32",
        "data": "i21k_30",
        "epochs": "30",
        "lr": "0.001",
        "aug": "none",
        "wd": "0.03",
        "do": "0.1",
        "sd": "0.1",
    }
    assert google.augreg("ViT-B_16") is None


def test_the_label_space_of_googles_imagenet_21k_is_its_own(tmp_path):
    assert said(reading.load(save(tmp_path / "i21k.npz", original(classes=21_843))), "Google's 21843 of ImageNet-21k")
    assert not said(reading.load(save(tmp_path / "other.npz", original(classes=21_841))), "ImageNet-21k")


def test_an_unknown_layout_names_the_nearest_and_what_it_does_not_know(tmp_path):
    arrays = {name.replace("MlpBlock_3", "Ffn"): x for name, x in original().items()}
    with pytest.raises(UserError) as caught:
        reading.load(save(tmp_path / "odd.npz", arrays))
    message = str(caught.value)
    assert "The nearest is Google ViT (before Linen): it has 32 of the 40 names" in message
    assert "Transformer/encoderblock_0/Ffn/Dense_0/kernel [8, 12]" in message
    assert "timm ViT" in message


def test_nothing_is_left_out_in_silence(tmp_path):
    arrays = original() | {"Transformer/encoderblock_0/extra": np.zeros(3, np.float32)}
    del arrays["Transformer/encoderblock_1/MlpBlock_3/Dense_1/bias"]
    found = reading.load(save(tmp_path / "odd.npz", arrays))
    assert said(found, "unexpected: Transformer/encoderblock_0/extra")
    with pytest.raises(UserError) as caught:
        found.whole()
    assert "unexpected  Transformer/encoderblock_0/extra" in str(caught.value)
    assert "missing     encoder/block_01/mlp/out/bias" in str(caught.value)


def test_distilled_heads_are_no_part_of_the_model(tmp_path):
    from vitax.checkpoint import weight_writer
    from vitax.checkpoint.files import read

    file = read(str(FILES["hf_deit"]))
    arrays = {name.replace("classifier.", "cls_classifier."): x for name, x in file.arrays.items()}
    arrays |= {f"distillation_classifier.{leaf}": file.arrays[f"classifier.{leaf}"] for leaf in ("weight", "bias")}
    weight_writer.write(tmp_path / "w.npz", arrays.items(), {})
    (tmp_path / "config.json").write_text(json.dumps(dict(file.config)))
    found = reading.load(str(tmp_path / "w.npz"))
    assert said(found, "distillation: becomes a register")
    with pytest.raises(UserError, match="unexpected  distillation_classifier"):
        found.whole()
