"""``vitax predict``: which files, in which order, in which form; features and attention."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.images import of_every_kind, write
from vitax import attention_map, predict
from vitax.__main__ import main
from vitax.core.errors import UserError


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict") / "run"
    small = ["--config.model.depth=2", "--config.model.zero_head=false", "--config.evaluators=none"]
    small += ["--config.model.pool=tok", "--config.model.num_registers=1"]
    arguments = ["train", "--config", "quickstart:scratch", "--workdir", str(folder), *small]
    assert main([*arguments, "--config.duration.steps=2", "--config.data.batch_size=16"]) == 0
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write(folder / "b", of_every_kind(0))
    write(folder / "a" / "deep", of_every_kind(1))
    (folder / "b" / "notes.txt").write_text("no image")
    return folder


def run(capsys, workdir, *arguments, code=0):
    capsys.readouterr()
    assert main(["predict", "--checkpoint", str(workdir), *map(str, arguments)]) == code
    return capsys.readouterr()


def test_files_folders_and_globs_in_the_order_given(images, monkeypatch):
    monkeypatch.chdir(images)
    every = sorted(of_every_kind())
    assert predict.expand(["b", "a/deep/rgb.jpg", "a"])[: len(every)] == [f"b/{n}" for n in every]
    assert predict.expand(["a/deep/rgb.png", "a"])[0] == "a/deep/rgb.png"
    assert len(predict.expand(["a/deep/rgb.png", "a"])) == len(every)  # each once
    assert predict.expand(["b/one-*.png"]) == ["b/one-pixel.png"]
    assert predict.expand(["**/rgb.jpg"]) == ["a/deep/rgb.jpg", "b/rgb.jpg"]
    (images / "b" / "odd[1].png").write_bytes(of_every_kind()["rgb.png"])
    assert predict.expand(["b/odd[1].png"]) == ["b/odd[1].png"]  # a file of that name is no glob
    (images / "b" / "odd[1].png").unlink()


def test_every_kind_of_file_in_batches_of_any_size(workdir, images, capsys):
    whole = json.loads(run(capsys, workdir, images, "--json", "--topk", 3).out)
    assert [row["file"] for row in whole] == predict.expand([str(images)])
    for row in whole:
        p = [k["probability"] for k in row["topk"]]
        assert len(p) == 3
        assert p == sorted(p, reverse=True)
        assert row["topk"][0].keys() == {"label", "index", "probability"}
    small = json.loads(run(capsys, workdir, images, "--json", "--topk", 3, "--batch-size", 8).out)
    assert [r["file"] for r in small] == [r["file"] for r in whole]
    for a, b in zip(small, whole):
        np.testing.assert_allclose(
            [k["probability"] for k in a["topk"]], [k["probability"] for k in b["topk"]], rtol=1e-4
        )


def test_every_form_says_the_same(workdir, images, tmp_path, capsys):
    folder = images / "b"
    rows = json.loads(run(capsys, workdir, folder, "--format", "json", "--topk", 2).out)
    lines = run(capsys, workdir, folder, "--format", "jsonl", "--topk", 2).out.splitlines()
    assert [json.loads(line) for line in lines] == rows
    told = run(capsys, workdir, folder, "--topk", 2, "--output", tmp_path / "out.csv")
    assert told.out == ""
    with (tmp_path / "out.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    flat = [(r["file"], str(n), k["label"]) for r in rows for n, k in enumerate(r["topk"], 1)]
    assert [(t["file"], t["rank"], t["label"]) for t in table] == flat
    assert float(table[0]["probability"]) == pytest.approx(rows[0]["topk"][0]["probability"], rel=1e-5)
    text = run(capsys, workdir, folder, "--topk", 2).out.splitlines()
    assert len(text) == len(rows)
    best = rows[0]["topk"][0]
    assert text[0].startswith(f"{rows[0]['file']}: {best['label']} {best['probability']:.3f}, ")
    run(capsys, workdir, folder, "--json", "--output", tmp_path / "out.txt")
    assert len(json.loads((tmp_path / "out.txt").read_text())) == len(rows)


def test_unreadable_files_are_named_and_the_others_printed(workdir, tmp_path, capsys):
    files = of_every_kind()
    write(tmp_path, {"1.jpg": files["rgb.jpg"], "2.jpg": b"hello", "3.png": files["rgb.png"]})
    told = run(capsys, workdir, tmp_path, "--json", "--features", tmp_path / "f.npz", code=1)
    assert [row["file"][-5:] for row in json.loads(told.out)] == ["1.jpg", "3.png"]
    assert "2.jpg: not a readable image" in told.err
    assert "1 of 3 files could not be classified" in told.err
    assert [str(f)[-5:] for f in np.load(tmp_path / "f.npz")["files"]] == ["1.jpg", "3.png"]
    assert run(capsys, workdir, tmp_path / "2.jpg", "--json", code=1).out == "[]\n"


def test_features_are_what_the_head_sees(workdir, images, tmp_path, capsys):
    target = tmp_path / "f.npz"
    rows = json.loads(run(capsys, workdir, images / "b", "--json", "--topk", 10, "--features", target).out)
    with np.load(target) as saved:
        assert saved["files"].tolist() == [row["file"] for row in rows]
        features = saved["features"]
    assert (features.dtype, features.shape) == (np.float32, (len(rows), 96))
    predictor = predict.Predictor.load(str(workdir))
    head = predictor.state.params["head"]
    logits = features @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    for row, p in zip(rows, np.asarray(jax.nn.softmax(logits))):
        for guess in row["topk"]:
            assert p[guess["index"]] == pytest.approx(guess["probability"], rel=1e-3)


def test_attention_is_drawn(workdir, images, tmp_path, capsys):
    told = run(capsys, workdir, images / "b", "--attention", tmp_path / "a.png")
    assert f"attention on the first 16 of {len(of_every_kind())} images" in told.err
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 1000
        assert np.asarray(picture.convert("RGB")).std() > 30


def test_rollout_by_hand():
    """Two layers of three tokens, in NumPy and by the words of the paper."""
    attention = np.random.default_rng(0).dirichlet(np.ones(3), (2, 3)).astype(np.float32)
    first, second = (0.5 * a + 0.5 * np.eye(3) for a in attention)
    np.testing.assert_allclose(attention_map.rollout(jnp.asarray(attention)), second @ first, rtol=1e-6)
    np.testing.assert_allclose(attention_map.rollout(jnp.asarray(attention)).sum(-1), 1, rtol=1e-6)
    # No attention across tokens: everything stays where it was.
    np.testing.assert_allclose(attention_map.rollout(jnp.stack([jnp.eye(4)] * 5)), np.eye(4), atol=1e-6)


def test_maps_are_of_the_token_that_is_pooled():
    """[cls, register, 4 patches]: the cls token's row, or the mean of the patches'."""
    weights = np.random.default_rng(0).dirichlet(np.ones(6), (1, 2, 6)).astype(np.float32)  # [B, N, T, T]
    named = {"attention_00": jnp.asarray(weights[:, ::-1]), "attention_01": jnp.asarray(weights), "block_00": None}
    mean = weights[0].mean(0)
    last, rolled = attention_map.maps_of(named, "tok", 4)
    np.testing.assert_allclose(last[0], mean[0, 2:], rtol=1e-6)
    both = 0.5 * mean + 0.5 * np.eye(6)
    np.testing.assert_allclose(rolled[0], (both @ both)[0, 2:], rtol=1e-5)
    last, rolled = attention_map.maps_of(named, "gap", 4)
    np.testing.assert_allclose(last[0], mean[2:, 2:].mean(0), rtol=1e-6)
    np.testing.assert_allclose(rolled[0], (both @ both)[2:, 2:].mean(0), rtol=1e-5)


def test_overlays_lie_where_the_patches_are():
    values = np.zeros((4, 4), np.float32)
    values[1, 2] = 1
    over = attention_map.overlay(values, (40, 80))
    assert over.shape == (40, 80)
    assert np.unravel_index(over.argmax(), over.shape)[0] // 10 == 1
    assert np.unravel_index(over.argmax(), over.shape)[1] // 20 == 2
    assert attention_map.overlay(np.ones((4, 4)), (8, 8)).max() == 0


def test_bad_input_is_named_before_anything_is_computed(images, tmp_path, capsys):
    image = str(images / "b" / "rgb.png")
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([str(images / "b" / "rgb.pgn")], 'No such image file: .*Did you mean "rgb.png"'),
        ([str(tmp_path / "empty")], "no images"),
        ([str(tmp_path / "*.jpg")], "no file matches"),
        ([image, "--topk", "0"], "--topk 0: expected at least 1"),
        ([image, "--batch-size", "0"], "--batch-size 0: expected at least 1"),
        ([image, "--format", "jsn"], 'unknown name "jsn". Did you mean "json"'),
        ([image, "--format", "csv", "--json"], "both --json and --format csv"),
        ([image, "--output", "/nowhere/x.csv"], "there is no folder /nowhere"),
        ([image, "--output", str(tmp_path)], "is a folder; expected a file"),
        ([image, "--features", "f.npy"], "ends in .npz"),
        ([image, "--attention", "a.txt"], "ends in .png or"),
        ([image, "--atention", "a.png"], 'Did you mean "--attention"'),
        ([image], "no checkpoint in"),
    ):
        assert main(["predict", "--checkpoint", str(tmp_path / "none"), *arguments]) == 2
        told = capsys.readouterr().err
        with pytest.raises(UserError, match=message):
            raise UserError(told)
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    assert "--attention FILE.png" in capsys.readouterr().out
