"""BiT, EfficientNet and hybrids: parity through the loading path, both ways, and what goes wrong elsewhere.

The files come from scripts/make_families_golden.py, where torch computes in float64.
"""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest

from scripts import seeded_weights
from tests.families import GOLDEN, NAMES, TOLERANCE, apply, error, image, names_of, outputs, write
from vitax import zoo
from vitax.checkpoint import files
from vitax.checkpoint.names import bit, efficientnet
from vitax.checkpoint.names.layout import Constants
from vitax.core import tree
from vitax.core.errors import UserError
from vitax.models import efficientnet_sizes
from vitax.weights import reading, reading_bit, reading_efficientnet, writing

# timm reads Google's files into models that compute as torch ports do.
AS_TORCH = {
    "bit_google": {"std_eps": 1e-8},
    "hybrid_google": {
        "gelu": "erf",
        "stem_norm_eps": 1e-5,
        "stem_std_eps": 1e-8,
        "stem_std_eps_added_to": "variance",
    },
}
OWN = {"bit_google": "npz", "hybrid_google": "npz", "bit_hf": "hf", "efficientnet_hf": "hf"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return {name: write(name, folder / name) for name in NAMES}


def said(found, text):
    return any(text in line for line in found.lines)


def test_every_library_is_there():
    assert {name for name in NAMES if name.startswith("bit")} == {"bit_google", "bit_hf", "bit_timm"}
    assert len([name for name in NAMES if name.startswith("efficientnet")]) == 4
    assert len([name for name in NAMES if name.startswith("hybrid")]) == 3


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_those_of_the_library(name, written):
    want = outputs(name)
    size = tuple(int(n) for n in want["size"])
    found = reading.load(str(written[name]), size).whole()
    have = apply(found, image(name), **AS_TORCH.get(name, {}))
    assert error(have.features, want["features"]) <= TOLERANCE
    assert error(have.logits, want["logits"]) <= TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_written_back_it_is_the_same_file(name, written, tmp_path):
    if name.endswith("google"):
        target = tmp_path / "back.npz"
    else:
        pytest.importorskip("safetensors", reason="the extra `interop` is not installed")
        target = tmp_path / "back"
    writing.run(str(written[name]), target, OWN.get(name, "timm"))
    want, have = files.read(str(written[name])).arrays, files.read(str(target)).arrays
    assert have.keys() == want.keys()
    for key, value in want.items():
        assert have[key].dtype == value.dtype, key
        if key.endswith("num_batches_tracked"):
            assert have[key] == 0
        else:
            # Old files have axes of 1 in front of the norms; new ones do not.
            np.testing.assert_array_equal(have[key], value.reshape(have[key].shape), err_msg=key)
            assert have[key].shape == value.shape or value.shape[:3] == (1, 1, 1), key


# What is to be known before outputs could tell: 1e-8 and 1e-10 differ by less than any tolerance sees.
NUMERICS = {
    "bit_google": {"norm_eps": 1e-5, "std_eps": 1e-10, "num_groups": 32},
    "bit_timm": {"norm_eps": 1e-5, "std_eps": 1e-8, "num_groups": 32},
    "bit_hf": {"norm_eps": 1e-5, "std_eps": 1e-8, "num_groups": 4},
    "hybrid_google": {
        "gelu": "tanh",
        "norm_eps": 1e-6,
        "stem_norm_eps": 1e-6,
        "stem_std_eps": 1e-5,
        "stem_std_eps_added_to": "deviation",
    },
    "hybrid_timm": {
        "gelu": "erf",
        "norm_eps": 1e-6,
        "stem_norm_eps": 1e-5,
        "stem_std_eps": 1e-8,
        "stem_std_eps_added_to": "variance",
    },
    "efficientnet_timm_tf": {"padding": "same", "norm_eps": 1e-3, "norm_momentum": 0.99, "activation": "silu"},
    "efficientnet_timm_ported": {"padding": "symmetric", "norm_eps": 1e-5, "norm_momentum": 0.9, "activation": "silu"},
    "efficientnet_timm_lite": {"padding": "same", "norm_eps": 1e-3, "norm_momentum": 0.99, "activation": "relu6"},
    "efficientnet_hf": {"padding": "same", "norm_eps": 1e-3, "norm_momentum": 0.99, "activation": "silu"},
}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "hybrid_timm_root"])
def test_numerics_come_with_the_layout_and_are_said(name, written):
    found = reading.load(str(written[name]))
    assert {key: found.recipe["model"][key] for key in NUMERICS[name]} == NUMERICS[name]
    for key, value in NUMERICS[name].items():
        assert said(found, f"{key} {value}"), key


# name -> what shapes say
SHAPES = {
    "bit_google": {"blocks": (2, 1), "width_factor": 1, "root_width": 32, "num_classes": 5},
    "bit_hf": {"blocks": (2, 1), "width_factor": 1, "root_width": 8, "num_classes": 5},
    "hybrid_timm": {"kind": "hybrid", "stem_blocks": (2, 1), "stem_width": 32, "num_heads": 2, "patch_size": 1},
    "hybrid_timm_root": {"kind": "hybrid", "stem_blocks": (), "stem_width": 64, "patch_size": 8},
    "efficientnet_timm_tf": {"squeeze": 0.25, "stem_channels": 8, "top_channels": 128},
    "efficientnet_timm_lite": {"squeeze": 0.0, "stem_channels": 32, "top_channels": 1280},
}


@pytest.mark.parametrize("name", SHAPES)
def test_fields_come_of_shapes(name, written):
    found = reading.load(str(written[name]))
    assert {key: found.recipe["model"][key] for key in SHAPES[name]} == SHAPES[name]
    assert found.grid == {"hybrid_timm": (4, 6), "hybrid_timm_root": (2, 1)}.get(name)


@pytest.mark.parametrize("size", ["B0", "B3"])
def test_the_published_sizes_are_known_by_their_shapes(size):
    _, variables = zoo.create_model(f"EfficientNet-{size}", abstract=True, unroll=False)
    arrays = dict(tree.named_leaves(variables["params"]))
    model = reading_efficientnet.shape(efficientnet.TIMM, Constants(), arrays, None).model
    assert {name: model[name] for name in ("width_factor", "depth_factor")} == efficientnet_sizes.fields(size)
    assert (model["squeeze"], model["num_classes"]) == (0.25, 1000)
    assert "stages" not in model


def test_widths_of_bit_are_factors_of_its_root():
    _, variables = zoo.create_model("BiT-M-R50x3", abstract=True, unroll=False)
    arrays = dict(tree.named_leaves(variables["params"]))
    model = reading_bit.shape(bit.TIMM, Constants(), arrays, None).model
    assert (model["blocks"], model["width_factor"], model["root_width"]) == ((3, 4, 6, 3), 3, 64)


def test_layers_that_tensorflow_counted(written, tmp_path):
    arrays = {
        name.replace("standardized_conv2d", f"standardized_conv2d_{i}") if i % 2 else name: x
        for i, (name, x) in enumerate(files.read(str(written["bit_google"])).arrays.items())
    }
    assert any("standardized_conv2d_" in name for name in arrays)
    np.savez(tmp_path / "counted.npz", **arrays)
    have, want = (reading.load(str(path)).whole().params for path in (tmp_path / "counted.npz", written["bit_google"]))
    assert have.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(have[name], value)
    assert want["head/kernel"].ndim == 2  # a convolution of 1x1 in the file


def test_a_name_says_which_images_a_google_bit_was_tuned_on(written, tmp_path):
    tuned = tmp_path / "BiT-M-R50x1-ILSVRC2012.npz"
    tuned.write_bytes(written["bit_google"].read_bytes())
    assert reading.load(str(tuned)).image_size == (480, 480)
    assert reading.load(str(written["bit_google"])).image_size == (224, 224)
    assert reading.load(str(tuned), (64, 96)).image_size == (64, 96)


def test_running_statistics_lie_beside_the_parameters(written):
    found = reading.load(str(written["efficientnet_timm_tf"]))
    arrays = files.read(str(written["efficientnet_timm_tf"])).arrays
    np.testing.assert_array_equal(found.params["batch_stats/top/norm/var"], arrays["bn2.running_var"])
    np.testing.assert_array_equal(
        found.params["batch_stats/stage_2/block_01/depthwise_norm/mean"], arrays["blocks.1.0.bn2.running_mean"]
    )
    assert said(found, "num_batches_tracked")
    assert said(found, "counts steps of training, which running averages do not need")


def test_whether_tensorflow_trained_it_is_in_the_name_alone(tmp_path):
    alone = write("efficientnet_timm_ported", tmp_path / "alone", beside=False)
    found = reading.load(str(alone))
    assert found.recipe["model"]["padding"] == "same"
    assert said(found, "taken as TensorFlow's; PyTorch's want --config.model.padding=symmetric")
    for name, padding in (("efficientnet_b0.ra_in1k", "symmetric"), ("tf_efficientnet_b0.ns_jft_in1k", "same")):
        named = alone.rename(tmp_path / f"{name}.safetensors")
        found = reading.load(str(named))
        assert (found.recipe["model"]["padding"], found.image_size) == (padding, (224, 224))
        assert not said(found, "taken as")
        alone = named


def test_the_wrong_padding_is_seen(written):
    want = outputs("efficientnet_timm_ported")
    found = reading.load(str(written["efficientnet_timm_ported"]))
    have = apply(found, image("efficientnet_timm_ported"), padding="same")
    assert error(have.logits, want["logits"]) > TOLERANCE


def test_hugging_face_pads_as_tensorflow_for_even_sizes_alone(written, tmp_path):
    found = reading.load(str(written["efficientnet_hf"]))
    assert not said(found, "pads otherwise")
    want = outputs("efficientnet_hf")["odd_logits"]
    assert error(apply(found, image("efficientnet_hf", "odd_")).logits, want) > TOLERANCE
    config = json.loads((written["efficientnet_hf"].parent / "config.json").read_text())
    other = write("efficientnet_hf", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"image_size": 61}))
    assert said(reading.load(str(other)), "for images of 61x61 Hugging Face's own code pads otherwise")
    (tmp_path / "config.json").write_text(json.dumps(config | {"image_size": 60}))  # 60, 30, 15: odd in stage 3
    assert said(reading.load(str(other)), "for images of 60x60 Hugging Face's own code pads otherwise")
    (tmp_path / "config.json").write_text(json.dumps(config | {"image_size": 60, "depthwise_padding": [2]}))
    assert not said(reading.load(str(other)), "pads otherwise")


def test_blocks_in_a_row_find_their_stages_without_a_configuration(written, tmp_path):
    alone = reading.load(str(write("efficientnet_hf", tmp_path, beside=False)))
    with_config = reading.load(str(written["efficientnet_hf"]))
    assert alone.recipe["model"]["stages"] == with_config.recipe["model"]["stages"]
    assert alone.params.keys() == with_config.params.keys()


def test_a_residual_that_transformers_leaves_out_is_refused():
    efficientnet.check_residuals("x", 32, (1, 2, 2), (16, 24, 24))
    with pytest.raises(UserError, match="stage 2 begins with 24 channels and stride 1"):
        efficientnet.check_residuals("x", 32, (2, 1), (24, 24))


def test_pixels_that_are_divided_twice(written):
    objective = reading.load(str(written["efficientnet_hf"])).recipe["objective"]
    np.testing.assert_allclose(objective["std"], (0.229, 0.224, 0.225), rtol=1e-5)
    assert objective["mean"] == (0.485, 0.456, 0.406)
    assert said(reading.load(str(written["efficientnet_hf"])), "divided by image_std a second time")


@pytest.mark.parametrize(
    ("more", "mean", "std"),
    [
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "image_mean": [0.0], "image_std": [1.0]}, 0.5, 0.5),
        ({"rescale_factor": 1.0, "image_mean": [127.5], "image_std": [51.0]}, 0.5, 0.2),
    ],
    ids=["minus_one_to_one", "bytes"],
)
def test_other_scales_of_pixels(more, mean, std, tmp_path):
    path = write("efficientnet_hf", tmp_path)
    about = json.loads((tmp_path / "preprocessor_config.json").read_text()) | {"include_top": False} | more
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(about))
    objective = reading.load(str(path)).recipe["objective"]
    np.testing.assert_allclose(objective["mean"], mean)
    np.testing.assert_allclose(objective["std"], std)


@pytest.mark.parametrize(
    ("name", "size", "ops"),
    [
        ("bit_timm", (224, 224), ("resize_small", "bicubic_antialias", 256)),
        ("bit_hf", (32, 32), ("resize_small", "bicubic_antialias", 36)),
        ("efficientnet_timm_tf", (224, 224), ("resize_small", "bicubic_antialias", 256)),
        ("efficientnet_hf", (64, 64), ("resize", "nearest", None)),
    ],
)
def test_images_come_with_the_file(name, size, ops, written):
    found = reading.load(str(written[name]))
    op = found.recipe["data"]["ops"][1]
    assert found.image_size == size
    assert (op["kind"], op["method"], op.get("smaller")) == ops


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("bit_hf", {"layer_type": "bottleneck"}, "layer_type bottleneck in config.json; vitax's BiT has preactivation"),
        ("bit_hf", {"global_padding": "SAME"}, "pads symmetrically"),
        ("bit_timm", {"architecture": "resnetv2_50"}, "names that end in _bit"),
        ("efficientnet_hf", {"pooling_type": "max"}, "takes the mean"),
    ],
)
def test_what_our_models_cannot_follow_is_refused(name, change, message, tmp_path):
    path = write(name, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        reading.load(str(path))


@pytest.mark.parametrize(
    ("name", "to", "message"),
    [
        ("efficientnet_timm_tf", "npz", "no such files of efficientnets were ever published"),
        ("efficientnet_timm_ported", "hf", "pads as TensorFlow does"),
        ("efficientnet_timm_lite", "hf", "squeeze and excite in every block"),
        ("efficientnet_timm_tf", "hf", "stage 1 begins with 8 channels and stride 1"),
        ("hybrid_timm", "hf", "transformers has no such hybrid"),
        ("bit_hf", "npz", "norms of 32 groups, not 4"),
    ],
)
def test_what_a_library_cannot_hold_is_refused(name, to, message, written, tmp_path):
    pytest.importorskip("safetensors", reason="the extra `interop` is not installed")
    with pytest.raises(UserError, match=message):
        writing.run(str(written[name]), tmp_path / ("x.npz" if to == "npz" else "x"), to)


@pytest.mark.parametrize(("name", "to"), [("bit_google", "hf"), ("bit_timm", "npz"), ("hybrid_timm", "npz")])
def test_from_one_library_to_another(name, to, written, tmp_path):
    pytest.importorskip("safetensors", reason="the extra `interop` is not installed")
    target = tmp_path / ("x.npz" if to == "npz" else "x")
    size = tuple(int(n) for n in outputs(name)["size"])
    row = writing.run(f"{written[name]}", target, to)
    there = reading.load(str(target), size).whole()
    for key, value in reading.load(str(written[name]), size).params.items():
        np.testing.assert_array_equal(there.params[key], value)
    # What the other reader computes with is said.
    assert any("std_eps" in line and "its reader takes" in line for line in row["lines"])


def test_statistics_go_through_our_own_files(written, tmp_path):
    target = tmp_path / "own.npz"
    writing.run(str(written["efficientnet_timm_tf"]), target, "vitax")
    have, want = (reading.load(str(p)) for p in (target, written["efficientnet_timm_tf"]))
    assert have.params.keys() == want.params.keys()
    np.testing.assert_array_equal(have.params["batch_stats/stem/norm/var"], want.params["batch_stats/stem/norm/var"])


def test_nothing_is_left_out_in_silence(written, tmp_path):
    arrays = seeded_weights.fill(names_of("efficientnet_hf"))
    del arrays["efficientnet.encoder.blocks.5.squeeze_excite.reduce.bias"]
    arrays["efficientnet.encoder.blocks.5.gate.weight"] = np.zeros(3, np.float32)
    folder = write("efficientnet_hf", tmp_path).parent
    seeded_weights.write(folder / "model.safetensors", arrays)
    with pytest.raises(UserError) as caught:
        reading.load(str(folder)).whole()
    assert "unexpected  efficientnet.encoder.blocks.5.gate.weight" in str(caught.value)
    assert "missing     stage_6/block_01/squeeze/bias" in str(caught.value)


@pytest.mark.torch
def test_golden_files_are_what_the_libraries_give(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="needs scripts/requirements-parity.txt")
    monkeypatch.syspath_prepend(str(GOLDEN.parents[2] / "scripts"))
    try:
        script = importlib.import_module("make_families_golden")
    except ImportError as missing:
        pytest.skip(f"needs scripts/requirements-parity.txt: {missing}")
    assert sorted(script.MAKERS) == NAMES
    for name, make in script.MAKERS.items():
        folder = tmp_path / name
        folder.mkdir()
        fresh = make(name, folder)
        assert (folder / "names.json").read_text() == (GOLDEN / name / "names.json").read_text()
        for key, value in outputs(name).items():
            np.testing.assert_allclose(fresh[key], value, rtol=1e-6, atol=1e-9, err_msg=f"{name} {key}")


@pytest.mark.torch
@pytest.mark.slow
def test_real_sizes_both_ways(tmp_path):
    for package in ("torch", "timm", "transformers"):
        pytest.importorskip(package, reason="needs scripts/requirements-parity.txt")
    script = GOLDEN.parents[2] / "scripts" / "check_family_sizes.py"
    for command in (
        [str(script), "make", str(tmp_path)],
        ["-m", "scripts.check_family_sizes", "here", str(tmp_path)],
        [str(script), "there", str(tmp_path)],
    ):
        subprocess.run([sys.executable, *command], check=True, cwd=GOLDEN.parents[2])
