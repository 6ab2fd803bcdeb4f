"""The verbs on published files of BiT, EfficientNet and hybrids."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from tests.families import apply, write
from tests.images import shapes
from vitax import finetune, run
from vitax.__main__ import main
from vitax.checkpoint import files
from vitax.weights import reading


def picture(path, seed, size=(32, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)
    return path


def scaled(found, paths):
    objective = found.recipe["objective"]
    pixels = np.stack([np.asarray(Image.open(path), np.float32) for path in paths]) / 255
    return ((pixels - np.asarray(objective["mean"])) / np.asarray(objective["std"])).astype(np.float32)


def test_predict_with_running_statistics(tmp_path, capsys):
    file = write("efficientnet_hf", tmp_path / "model")
    photo = picture(tmp_path / "photo.png", 0)
    arguments = ["predict", "--checkpoint", str(file), str(photo), "--json", "--config.data.image_size=32"]
    assert main(arguments) == 0
    told = capsys.readouterr()
    (row,) = json.loads(told.out)
    found = reading.load(str(file))
    want = np.asarray(jax.nn.softmax(apply(found, scaled(found, [photo])).logits))[0]
    have = {guess["label"]: guess["probability"] for guess in row["topk"]}
    np.testing.assert_allclose([have[f"kind {i}"] for i in range(5)], want, rtol=1e-4)
    assert "Hugging Face EfficientNet, 15" in told.err
    assert "padding same" in told.err


def test_evaluation_of_a_bit(tmp_path, capsys):
    file = write("bit_hf", tmp_path / "model")
    folders = [tmp_path / "images" / f"kind {label}" for label in range(5)]
    paths = [picture(folder / f"{k}.png", 9 * i + k) for i, folder in enumerate(folders) for k in (0, 1)]
    arguments = ["eval", "--checkpoint", str(file), "--data", str(tmp_path / "images"), "--json"]
    assert main([*arguments, '--config.data.ops=({"kind":"decode"},{"kind":"resize"})']) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["examples"] == 10
    found = reading.load(str(file))
    guesses = np.asarray(apply(found, scaled(found, paths)).logits).argmax(1)
    assert told["metrics"]["val/accuracy"] == pytest.approx((guesses == np.arange(10) // 2).mean())


def test_fine_tuning_takes_statistics_along(tmp_path, capsys, monkeypatch):
    data = shapes(tmp_path / "images", 12)
    file = str(write("efficientnet_timm_tf", tmp_path / "model"))
    asked = finetune.Request(str(data), file, overrides=("--config.data.image_size=32", "--config.data.batch_size=8"))
    recipe = finetune.make_recipe(asked)
    assert recipe.config["optimizer"]["kind"] == "sgd"
    assert recipe.config["model"]["padding"] == "same"
    program = recipe.program()
    monkeypatch.setattr(program, "init", lambda: program.abstract_state)  # the random start takes long to compile
    state = run.initial_state(recipe, program, tmp_path)
    warm = json.loads((tmp_path / "warm_start.json").read_text())
    assert {line.split()[0] for line in warm["reset"]} == {"head/bias", "head/kernel"}
    assert warm["ignored"] == []
    mean = files.read(file).arrays["blocks.5.1.bn3.running_mean"]
    np.testing.assert_array_equal(state.mutables["batch_stats"]["stage_6"]["block_02"]["project_norm"]["mean"], mean)
    assert "the weights were trained with" not in capsys.readouterr().err


def test_a_hybrid_at_another_size(tmp_path, capsys):
    file = write("hybrid_timm_root", tmp_path / "model")
    photo = picture(tmp_path / "photo.png", 0, (32, 96))
    arguments = ["predict", "--checkpoint", str(file), str(photo), "--features", str(tmp_path / "f.npz")]
    assert main([*arguments, "--config.data.image_size=(32,96)"]) == 0
    assert "resampled: pos_embedding [1, 3, 16] -> [1, 4, 16]" in capsys.readouterr().err
    with np.load(tmp_path / "f.npz") as saved:
        assert saved["features"].shape == (1, 16)
