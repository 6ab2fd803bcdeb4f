"""``vitax finetune``: the recipe it makes, and the whole way from a folder to predictions."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.images import of_every_kind, shapes, write
from vitax import config_files, finetune, own_data, recipe
from vitax.__main__ import main
from vitax.train.workdir import read_rows

START = {
    "model": {
        "kind": "vit",
        "width": 192,
        "depth": 2,
        "mlp_dim": 64,
        "num_heads": 3,
        "patch_size": 16,
        "pre_logits": True,
        "head_bias_init": -10.0,
        "dropout": 0.1,
        "stochastic_depth": 0.1,
        "image_size": 64,
    },
    "objective": {"kind": "classification", "cross_entropy": "sigmoid", "mean": [0.4], "std": [0.2], "mixup": 0.5},
    "data": {
        "image_size": 64,
        "channels": 3,
        "num_classes": 5,
        "ops": [{"kind": "decode"}, {"kind": "inception_crop", "method": "bicubic"}],
    },
    "dtype": "bfloat16",
    "mesh": {"fsdp": 4},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return shapes(tmp_path_factory.mktemp("own") / "my_images", 30)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pretrained") / "pretrain"
    small = ["--config.model.depth=2", "--config.duration.steps=60", "--config.evaluators=none"]
    assert main(["train", "--config", "quickstart:pretrain", "--workdir", str(workdir), *small]) == 0
    return workdir


def make(folder, overrides=(), **options):
    pairs = config_files.parse_overrides(overrides)
    return finetune.make_config(own_data.find(str(folder)), "runs/start", START, overrides=pairs, **options)


def test_the_checkpoint_decides_how_images_look_and_the_data_the_rest(folder):
    config, reasons = make(folder)
    built = recipe.build(config)
    plain = built.config
    assert plain["model"] == {
        k: START["model"][k] for k in ("kind", "width", "depth", "mlp_dim", "num_heads", "patch_size")
    }
    assert plain["objective"] == {
        "kind": "classification",
        "cross_entropy": "softmax",
        "mean": (0.4,),
        "std": (0.2,),
    }
    assert (built.data.image_size, built.data.channels, built.data.num_classes) == (64, 3, 3)
    assert [op["kind"] for op in built.data.ops] == ["decode", "resize", "random_crop", "flip"]
    assert built.data.ops[1] == {"kind": "resize", "method": "bicubic", "size": 75}
    assert plain["evaluators"]["val"]["data"]["ops"][1] == {"kind": "resize", "method": "bicubic"}
    assert built.optimizer.lr == pytest.approx(0.1 / 192, rel=0.01)
    assert plain["dtype"] == "bfloat16"
    assert "mesh" not in plain
    assert built.total_steps == 500
    assert built.data.num_examples + plain["evaluators"]["val"]["data"]["num_examples"] == 90
    assert "BiT-HyperRule for 72 images" in reasons["duration"]


def test_no_flip(folder):
    config, _ = make(folder, flip=False)
    assert [op["kind"] for op in config.data.ops] == ["decode", "resize", "random_crop"]


@pytest.mark.parametrize(("examples", "size"), [(2, 32), (100, 32), (511, 32), (512, 64), (5_000, 512), (10**6, 512)])
def test_batches_fit_the_data(examples, size):
    assert finetune.batch_size(examples) == size


def test_other_choices_follow_an_image_size_that_is_set(folder):
    config, reasons = make(folder, ["--config.data.image_size=96", "--config.data.batch_size=16"])
    assert config.data.ops[1]["size"] == 112
    assert reasons["data.image_size"] == reasons["data.batch_size"] == "you set it"
    assert "111 epochs" in reasons["duration"]
    recipe.build(config)
    with pytest.raises(finetune.UserError, match=r"data\.batch_size: expected int"):
        make(folder, ["--config.data.batch_size=many"])


def with_start(folder, **changes):
    start = START | {part: START[part] | fields for part, fields in changes.items()}
    return finetune.make_config(own_data.find(str(folder)), "runs/start", start)


def test_deep_models_learn_slower_in_their_first_layers(folder):
    assert "layer_decay" not in with_start(folder, model={"depth": 11})[0].optimizer
    config, reasons = with_start(folder, model={"depth": 12})
    assert config.optimizer.layer_decay == 0.75
    assert "MAE, Table 9" in reasons["optimizer.layer_decay"]
    recipe.build(config)


def test_images_are_not_as_large_as_positions_that_training_never_saw(folder):
    for stored, patch, size in ((518, 14, 224), (512, 16, 224), (448, 14, 448), (384, 16, 384)):
        config, reasons = with_start(folder, model={"patch_size": patch}, data={"image_size": stored})
        assert config.data.image_size == size
        assert config.data.ops[1]["size"] == round(size * 7 / 6)
        assert (str(stored) in reasons["data.image_size"]) == (size != stored)
    # A ResNet has no positions.
    config, _ = with_start(folder, model={"kind": "bit"}, data={"image_size": 480})
    assert config.data.image_size == 480


def test_every_field_is_echoed_with_its_reason(folder):
    config, reasons = make(folder, ["--config.seed=3"])
    echo = finetune.lines(config.to_dict(), reasons)
    for key in config_files.flatten(config.to_dict()):
        assert any(line.split()[0] == key for line in echo), key
    assert next(line for line in echo if "  seed" in line).endswith("you set it")
    assert next(line for line in echo if "optimizer.lr" in line).split()[1] == "0.00052"


SHORT = ["--config.duration.steps=120", "--config.evaluators.val.every.fraction=1"]


def test_from_a_folder_to_predictions(folder, pretrained, tmp_path, capsys):
    workdir = tmp_path / "mine"
    command = ["finetune", "--data", str(folder), "--checkpoint", str(pretrained), "--workdir", str(workdir), *SHORT]
    assert main(command) == 0
    told = capsys.readouterr()
    assert "Warning: Accuracy is measured on 18 images" in told.err
    assert "optimizer.lr" in told.err
    assert "found: bars, blob, stripes" in told.err
    assert "vitax predict --checkpoint" in told.err
    assert told.out.startswith("state digest=")
    warm = json.loads((workdir / "warm_start.json").read_text())
    assert {line.split()[0] for line in warm["reset"]} == {"head/kernel", "head/bias"}
    assert "embedding/kernel" in warm["placed"]
    assert read_rows(workdir / "metrics.jsonl")[-1]["val/accuracy"] >= 0.9

    assert main(["eval", "--checkpoint", str(workdir), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["examples"] == 18
    assert measured["metrics"]["val/accuracy"] == read_rows(workdir / "metrics.jsonl")[-1]["val/accuracy"]

    fresh = shapes(tmp_path / "fresh", 10, seed=1)
    assert main(["predict", "--checkpoint", str(workdir), str(fresh), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 30
    right = [row["topk"][0]["label"] in row["file"] for row in rows]
    assert np.mean(right) >= 0.9

    # The recipe it wrote is a recipe: `train` goes on with it, and with nothing left to do.
    saved = str(workdir / "recipe.json")
    assert main(["train", "--config", saved, "--workdir", str(workdir)]) == 0
    assert capsys.readouterr().out == told.out


def test_a_stopped_run_goes_on_by_the_same_command(folder, pretrained, tmp_path, capsys, monkeypatch):
    cut = tmp_path / "images"
    shutil.copytree(folder, cut)
    (cut / "bars" / "000.png").write_bytes(b"hello")
    options = ["--checkpoint", str(pretrained), "--skip-unreadable", "--config.duration.steps=10"]
    digests = []
    for name in ("straight", "stopped"):
        command = ["finetune", "--data", str(cut), "--workdir", str(tmp_path / name), *options]
        assert main(command) == 0
        digests.append(capsys.readouterr().out)
    for step in ("9", "10"):
        shutil.rmtree(tmp_path / "stopped" / "checkpoints" / step)
    # Files were opened when it began, and are not again.
    monkeypatch.setattr(own_data, "inspect", None)
    assert main(command) == 0
    told = capsys.readouterr()
    assert "Resumed at step 8" in told.err
    assert digests[0] == digests[1] == told.out
    # Other data in the same workdir would mix two runs.
    assert main([*command, "--val-fraction", "0.5"]) == 2
    assert "held_out" in capsys.readouterr().err
    shutil.rmtree(cut / "blob")
    assert main(command) == 2
    assert "data.num_examples" in capsys.readouterr().err


def test_every_kind_of_file_is_trained_on(pretrained, tmp_path, capsys):
    for label, seed in (("a", 0), ("b", 1)):
        write(tmp_path / label, of_every_kind(seed))
    lines = [["path", "label"], *([f"{label}/{name}", label] for label in "ab" for name in of_every_kind())]
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    (tmp_path / "labels.csv").write_text(text.getvalue())
    workdir = str(tmp_path / "run")
    command = ["finetune", "--data", str(tmp_path / "labels.csv"), "--checkpoint", str(pretrained)]
    assert main([*command, "--workdir", workdir, "--config.duration.steps=3"]) == 0
    assert main(["predict", "--checkpoint", workdir, str(tmp_path / "a"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(rows) == len(of_every_kind())


def test_dry_run_prints_a_recipe_that_train_accepts(folder, pretrained, tmp_path, capsys):
    command = ["finetune", "--data", str(folder), "--checkpoint", str(pretrained), "--dry-run"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    (tmp_path / "mine.json").write_text(printed)
    assert json.loads(printed)["data"]["channels"] == 1  # grey, as the checkpoint
    again = recipe.load(str(tmp_path / "mine.json"), ["--config.data.ops.1.size=40"])
    assert again.data.ops[1]["size"] == 40
    assert (
        recipe.load(str(tmp_path / "mine.json")).config
        == recipe.build(config_files.load(str(tmp_path / "mine.json"))).config
    )


def test_bad_input_is_named_before_anything_is_computed(folder, pretrained, tmp_path, capsys, monkeypatch):
    from vitax import run

    monkeypatch.setattr(run, "start_jax", None)
    (tmp_path / "weights.npz").write_bytes(b"")
    bad = shapes(tmp_path / "bad", 3)
    Image.new("RGB", (4, 4)).save(bad / "bars" / "x.bmp")
    base = {"--data": str(folder), "--checkpoint": str(pretrained), "--workdir": str(tmp_path / "w")}
    for changes, more, message in (
        ({"--data": str(tmp_path / "nowhere")}, [], "no folder or CSV"),
        ({"--data": str(folder / "bars")}, [], "30 images lie in it, but in no class folder"),
        ({"--data": str(bad)}, [], "x.bmp: not .jpg .jpeg .png .webp by its name"),
        ({"--checkpoint": "/nowhere"}, [], "--checkpoint /nowhere: no checkpoint"),
        ({"--checkpoint": str(tmp_path / "weights.npz")}, [], "broken or no .npz file"),
        ({"--checkpoint": f"{pretrained}@7"}, [], "no step 7. There are: 60"),
        ({}, ["--config.optimizer.lrr=1"], 'Did you mean "lr"?'),
        ({}, ["--lr=1"], "Unknown argument --lr"),
        ({}, ["--skip-unreadble"], 'Did you mean "--skip-unreadable"'),
        ({"--workdir": None}, [], "finetune: --workdir DIR is missing"),
        ({"--data": None}, [], "--data"),
    ):
        words = [w for k, v in (base | changes).items() if v is not None for w in (k, v)]
        assert main(["finetune", *words, *more]) == 2, message
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
    assert not (tmp_path / "w").exists()


def test_a_run_goes_on_when_its_start_is_gone(folder, pretrained, tmp_path, capsys):
    start, workdir = tmp_path / "start", tmp_path / "w"
    shutil.copytree(pretrained, start)
    command = ["finetune", "--data", str(folder), "--checkpoint", str(start), "--workdir", str(workdir)]
    command += ["--config.duration.steps=3"]
    assert main(command) == 0
    shutil.rmtree(start)
    assert main(command) == 2
    hint = f"vitax train --config {workdir / 'recipe.json'} --workdir {workdir}"
    assert hint in capsys.readouterr().err
    assert main(hint.split()[1:]) == 0


def test_json_recipes_that_are_none(tmp_path, capsys):
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "b.json").write_text("{")
    for name, message in (
        ("a.json", "expected an object"),
        ("b.json", "is not valid JSON"),
        ("c.json", "cannot be read"),
        ("a.json:x", "a JSON recipe has no variants"),
    ):
        assert main(["train", "--config", str(tmp_path / name), "--workdir", str(tmp_path / "w")]) == 2
        assert message in capsys.readouterr().err
