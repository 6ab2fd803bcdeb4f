"""Published weight files: outputs, exports, and the verbs that take them.

The files come from scripts/make_published_golden.py, where torch computes in float64.
"""

import importlib.util
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.images import shapes
from tests.published import FILES, TOLERANCE, apply, error, outputs
from vitax import finetune, infer, run
from vitax.__main__ import main
from vitax.checkpoint import files
from vitax.construct import construct
from vitax.core.errors import UserError
from vitax.models.table import MODELS
from vitax.weights import reading, writing
from vitax.weights.fitting import Fit

ROOT = Path(__file__).parents[1]


def test_every_family_is_there():
    assert {name.partition("_")[0] for name in FILES} == {"timm", "hf", "google"}
    assert len(FILES) == 14


@pytest.mark.parametrize("name", FILES)
def test_outputs_equal_those_of_the_library(name):
    want = outputs(name)
    found = reading.load(str(FILES[name])).whole()
    have = apply(found, want["image"])
    assert error(have.features, want["features"]) <= TOLERANCE
    assert ("logits" in want) == (have.logits is not None)
    if have.logits is not None:
        assert error(have.logits, want["logits"]) <= TOLERANCE


@pytest.mark.parametrize("name", ["timm_tok", "hf_vit"])
def test_outputs_on_larger_images_equal_those_of_the_library(name):
    # Each library resamples positions in its own way: antialiased bicubic and bicubic.
    want = outputs(name)
    found = reading.load(str(FILES[name]))
    size = want["large_image"].shape[1:3]
    model = construct(MODELS, found.recipe["model"], "model")
    fit = Fit(model, size, True, found.grid, found.positions, found.patches)
    table = fit.position_table(found.params["pos_embedding"], (1, 26, 16))
    larger = reading.dataclasses.replace(found, params={**found.params, "pos_embedding": table})
    have = apply(larger, want["large_image"])
    assert error(have.logits, want["large_logits"]) <= TOLERANCE


# Those that their own layout can hold as they were: the golden file is what the export must be.
@pytest.mark.parametrize(
    ("name", "to"),
    [
        *(
            (n, "timm")
            for n in FILES
            if n.startswith("timm_") and n not in ("timm_registers_with_positions", "timm_gap_with_cls")
        ),
        *((n, "hf") for n in FILES if n.startswith("hf_") and n != "hf_deit"),
        ("google_vit_jax", "npz"),
        ("google_siglip", "npz"),
    ],
)
def test_an_export_is_the_file_it_came_from(tmp_path, name, to):
    pytest.importorskip("safetensors", reason="the extra `interop` is not installed")
    target = tmp_path / ("out.npz" if to == "npz" else "out")
    writing.run(str(FILES[name]), target, to)
    have, want = files.read(str(target)), files.read(str(FILES[name]))
    # Left out on the way here and said so: DINOv2's head of two tokens and its mask token.
    strip = {"hf_dinov2": "dinov2."}.get(name, "")
    expected = {
        n.removeprefix(strip): x
        for n, x in want.arrays.items()
        if name != "hf_dinov2" or not n.startswith("classifier")
    }
    assert have.arrays.keys() == expected.keys()
    for key, x in expected.items():
        assert have.arrays[key].dtype == x.dtype
        if key != "embeddings.mask_token":
            np.testing.assert_array_equal(have.arrays[key], x, err_msg=key)
    for key, value in have.config.get("model_args", have.config).items():
        there = want.config.get("model_args", want.config).get(key, value)
        if key not in ("architectures", "id2label", "label2id", "init_values", "img_size", "hidden_act"):
            assert there == value, key


@pytest.mark.parametrize("name", ["google_vit_jax", "timm_registers", "hf_dinov2_registers", "timm_map"])
def test_every_layout_reads_back_as_the_same_model(tmp_path, name):
    pytest.importorskip("safetensors", reason="the extra `interop` is not installed")
    want = outputs(name)
    for to, target in (
        ("vitax", tmp_path / "w.npz"),
        ("vitax", tmp_path / "w.safetensors"),
        ("timm", tmp_path / "timm"),
    ):
        writing.run(str(FILES[name]), target, to)
        found = reading.load(str(target)).whole()
        before = reading.load(str(FILES[name])).recipe
        assert found.recipe["model"]["gelu"] == before["model"]["gelu"]
        assert tuple(found.recipe["objective"]["mean"]) == before["objective"]["mean"]
        assert [op["kind"] for op in found.recipe["data"]["ops"]] == [op["kind"] for op in before["data"]["ops"]]
    assert error(apply(found, want["image"]).features, want["features"]) <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "to", "target", "message"),
    [
        ("timm_tok", "tim", "x", 'Did you mean "timm"'),
        ("timm_tok", "timm", "x.safetensors", "writes a folder"),
        ("timm_tok", "npz", "x.safetensors", "ends in .npz"),
        ("timm_registers", "npz", "x.npz", "has no num_registers"),
        ("hf_vit_model", "timm", "x", "has no pre_logits"),
        ("timm_map", "hf", "x", "pools the cls token"),
        ("timm_registers_with_positions", "hf", "x", "registers in DINOv2 alone"),
        ("timm_registers", "hf", "x", "whole multiple of the width"),
    ],
)
def test_what_a_layout_cannot_hold_is_an_error(tmp_path, name, to, target, message):
    with pytest.raises(UserError, match=message):
        writing.run(str(FILES[name]), tmp_path / target, to)
    assert list(tmp_path.iterdir()) == []


def test_ckpt_export_names_the_verb_for_files(tmp_path, capsys):
    assert main(["ckpt", "export", str(FILES["timm_tok"]), str(tmp_path / "w.npz")]) == 2
    assert "vitax convert reads these" in capsys.readouterr().err


def test_predict_and_features_from_published_files(tmp_path, capsys):
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)).save(photo)
    file = FILES["hf_vit"]
    features = tmp_path / "features.npz"
    assert main(["predict", "--checkpoint", str(file), str(photo), "--json", "--features", str(features)]) == 0
    told = capsys.readouterr()
    (row,) = json.loads(told.out)
    assert {guess["label"] for guess in row["topk"]} == {f"kind {i}" for i in range(5)}
    assert "Hugging Face ViT, 40 arrays matched" in told.err
    assert "norm_eps 1e-12" in told.err
    found = reading.load(str(file))
    pixels = (np.asarray(Image.open(photo), np.float32)[None] / 255 - 0.5) / 0.5
    want = apply(found, pixels)
    with np.load(features) as saved:
        assert error(saved["features"], np.asarray(want.features)) <= TOLERANCE
    have = {guess["index"]: guess["probability"] for guess in row["topk"]}
    np.testing.assert_allclose([have[i] for i in range(5)], np.asarray(jax.nn.softmax(want.logits))[0], rtol=1e-4)


def test_a_file_of_grey_images_is_scaled_as_grey(tmp_path, capsys):
    # Weights summed over RGB see in a grey image what the file's own see in its three equal channels.
    photo, grey = tmp_path / "photo.png", tmp_path / "grey.npz"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)).save(photo)
    with np.load(FILES["google_vit_jax"]) as file:
        arrays = dict(file)
    np.savez(grey, **arrays | {"embedding/kernel": arrays["embedding/kernel"].sum(2, keepdims=True)})
    guesses = []
    for checkpoint in (FILES["google_vit_jax"], grey):
        assert main(["predict", "--checkpoint", str(checkpoint), str(photo), "--json"]) == 0
        told = capsys.readouterr()
        assert "pixels: (x / 255 - 0.5) / 0.5" in told.err
        (row,) = json.loads(told.out)
        guesses.append({guess["index"]: guess["probability"] for guess in row["topk"]})
    assert guesses[1] == pytest.approx(guesses[0], rel=1e-4)


def test_an_npz_says_that_it_has_no_class_names(tmp_path):
    row = writing.run(str(FILES["hf_vit"]), tmp_path / "w.npz", "npz")
    assert any(line.startswith("class names: left out") for line in row["lines"])


def test_a_file_without_a_head_gives_features_alone(tmp_path, capsys):
    photo = tmp_path / "photo.png"
    Image.new("RGB", (30, 20), "red").save(photo)
    file = str(FILES["google_siglip"])
    assert main(["predict", "--checkpoint", file, str(photo)]) == 2
    assert "has no head" in capsys.readouterr().err
    arguments = ["predict", "--checkpoint", f"{file}:img", str(photo), "--features", str(tmp_path / "f.npz")]
    assert main([*arguments, "--config.data.image_size=16"]) == 0
    assert "resampled: pos_embedding [1, 9, 16] -> [1, 16, 16]" in capsys.readouterr().err
    with np.load(tmp_path / "f.npz") as saved:
        assert saved["features"].shape == (1, 16)


def test_fine_tuning_starts_from_a_published_file(tmp_path, capsys):
    data = shapes(tmp_path / "images", 12)
    file = str(FILES["timm_deit"])
    asked = finetune.Request(str(data), file, overrides=("--config.data.image_size=16", "--config.data.batch_size=8"))
    recipe = finetune.make_recipe(asked)
    assert recipe.config["objective"]["mean"] == (0.485, 0.456, 0.406)
    assert recipe.config["data"]["ops"][1] == {"kind": "resize", "method": "bicubic_antialias", "size": 19}
    assert recipe.config["model"]["gelu"] == "erf"
    state = run.initial_state(recipe, recipe.program(), tmp_path)
    assert "timm ViT, 32 arrays matched" in capsys.readouterr().err
    warm = json.loads((tmp_path / "warm_start.json").read_text())
    assert warm["source"] == f"{file} (timm ViT)"
    assert warm["resampled"] == ["pos_embedding [1, 10, 16] -> [1, 17, 16]"]
    assert {line.split()[0] for line in warm["reset"]} == {"head/bias", "head/kernel"}
    assert len(warm["placed"]) == 37
    assert warm["ignored"] == []
    kernel = files.read(file).arrays["blocks.1.mlp.fc1.weight"]
    np.testing.assert_array_equal(state.params["encoder"]["block_01"]["mlp"]["in"]["kernel"], kernel.T)


def test_another_size_crops_the_same_part_of_the_image():
    old = reading.load(str(FILES["hf_deit"]))
    sizes = {}
    for size in (None, 24):
        overrides = [f"--config.data.image_size={size}"] if size else []
        recipe, *_ = infer.load(str(FILES["hf_deit"]), overrides)
        sizes[recipe.data.size[0]] = [op["smaller"] for op in recipe.data.ops if op["kind"] == "resize_small"]
    ((side, (smaller,)), (larger, (resized,))) = sizes.items()
    assert (side, larger) == (old.image_size[0], 24)
    assert resized == round(smaller * 24 / side) > smaller
    recipe, *_ = infer.load(str(FILES["hf_deit"]), ["--config.data.image_size=24", "--config.data.ops.1.smaller=30"])
    assert recipe.data.ops[1]["smaller"] == 30


def test_another_size_holds_for_evaluation_too(tmp_path):
    images = shapes(tmp_path / "images", 2)
    recipe, *_ = infer.load(str(FILES["hf_deit"]), ["--config.data.image_size=24"], str(images))
    assert recipe.config["evaluators"]["val"]["data"]["ops"] == recipe.config["data"]["ops"]


def test_evaluation_on_class_folders(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where nothing is to train on
    rng = np.random.default_rng(0)
    for label in range(5):
        for k in range(3):
            path = tmp_path / "images" / "val" / f"n{label}" / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(path)
        (tmp_path / "images" / "train" / f"n{label}").mkdir(parents=True)
    file = str(FILES["google_vit_jax"])
    assert main(["eval", "--checkpoint", file, "--data", str(tmp_path / "images"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["examples"] == 15
    paths = [tmp_path / "images" / "val" / f"n{label}" / f"{k}.png" for label in range(5) for k in range(3)]
    pixels = np.stack([np.asarray(Image.open(path), np.float32) for path in paths]) / 127.5 - 1
    guesses = np.asarray(apply(reading.load(file), pixels).logits).argmax(1)
    assert told["metrics"]["val/accuracy"] == pytest.approx((guesses == np.arange(15) // 3).mean())
    assert main(["eval", "--checkpoint", file, "--data", str(tmp_path / "images" / "val" / "n0")]) == 2
    assert main(["eval", "--checkpoint", file]) == 2
    assert "give labelled images with --data DIR" in capsys.readouterr().err


def test_a_warm_start_says_which_settings_differ():
    found = reading.load(str(FILES["timm_deit"]))
    recipe = {"model": {"gelu": "tanh", "pool": "gap"}, "objective": {}}
    assert reading.differences(found, recipe) == [
        "model.gelu: the weights were trained with erf, the recipe has tanh",
        "model.pool: the weights were trained with tok, the recipe has gap",
        "objective.mean: the weights were trained with (0.485, 0.456, 0.406), the recipe has (0.5,)",
        "objective.std: the weights were trained with (0.229, 0.224, 0.225), the recipe has (0.5,)",
    ]
    assert reading.differences(found, found.recipe) == []


@pytest.mark.torch
def test_timm_and_transformers_load_what_is_exported(tmp_path, monkeypatch):
    for package in ("torch", "timm", "transformers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs scripts/requirements-parity.txt: {package}")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script = importlib.import_module("check_published_export")
    for name, path in FILES.items():
        for to in ("npz",) if name.startswith("google") else ("timm", "hf"):
            target = tmp_path / f"{name}_{to}{'.npz' * (to == 'npz')}"
            try:
                writing.run(str(path), target, to)
            except UserError:
                continue  # what it cannot hold is tested above
            errors = script.check(to, target, outputs(name))
            assert {k: e for k, e in errors.items() if not e <= TOLERANCE} == {}, target
    sys.modules.pop("check_published_export")
