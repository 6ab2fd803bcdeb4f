"""A model without patches and attention, through every verb that a ViT goes through."""

import json
import subprocess
import sys

import pytest

from tests.conftest import tiny_config
from tests.images import shapes
from vitax import estimate, finetune, own_data, recipe
from vitax.__main__ import main
from vitax.cost.topology import Topology

MODEL = {"kind": "bit", "blocks": (1,), "root_width": 8, "num_groups": 4}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    root = tmp_path_factory.mktemp("bit")
    config = tiny_config(model=MODEL, duration__steps=2, checkpoint__every={"steps": 2})
    (root / "config.json").write_text(json.dumps(config))
    assert main(["train", "--config", str(root / "config.json"), "--workdir", str(root / "run")]) == 0
    return root / "run"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return shapes(tmp_path_factory.mktemp("own") / "images", 12)


def test_predicts_and_says_that_it_has_no_attention(workdir, folder, tmp_path, capsys):
    image = str(next(folder.rglob("*.png")))
    arguments = ["predict", image, "--checkpoint", str(workdir)]
    assert main([*arguments, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)[0]["topk"]) == 4
    assert main([*arguments, "--attention", str(tmp_path / "map.png")]) == 2
    assert 'the model kind "bit" has no attention to draw; expected a vit or a hybrid' in capsys.readouterr().err


def test_the_report_leaves_attention_out(workdir):
    assert main(["report", "--workdir", str(workdir)]) == 0
    page = (workdir / "report.html").read_text()
    assert "<h2" in page
    assert "Attention" not in page
    assert "Patch filters" not in page


def test_fine_tunes_at_another_size_by_the_hyper_rule(workdir, folder, tmp_path):
    start = json.loads((workdir / "recipe.json").read_text())
    config, reasons = finetune.make_config(own_data.find(str(folder)), str(workdir), start)
    assert (config.optimizer.kind, config.optimizer.lr) == ("sgd", 0.003 * config.data.batch_size / 512)
    assert "HyperRule" in reasons["optimizer"]
    arguments = ["finetune", "--data", str(folder), "--checkpoint", str(workdir), "--workdir", str(tmp_path / "tuned")]
    arguments += ["--config.duration.steps=1", "--config.data.image_size=24", "--config.data.batch_size=8"]
    assert main(arguments) == 0
    told = json.loads((tmp_path / "tuned" / "warm_start.json").read_text())
    assert told["resampled"] == []
    assert {line.split()[0] for line in told["reset"]} == {"head/bias", "head/kernel"}


def test_is_planned_by_arithmetic():
    topology, rows = Topology.parse("v3:2x2"), {}
    small = ["--config.model.root_width=8", "--config.model.num_groups=4", "--config.data.batch_size=64"]
    small += ["--config.model.blocks=(1,)", "--config.data.image_size=32"]
    for remat in ("none", "full"):
        built = recipe.load("bit_jft:R50x1", [*small, f"--config.remat={remat}"])
        program = built.program(estimate.abstract_mesh({"replica": 1, "data": 8, "fsdp": 1, "tensor": 1}), "tpu")
        layers = estimate.stack_of(built, program)
        rows[remat] = estimate.estimate(built, program, topology, topology.chip, layers, 1)
        assert rows[remat]["rough"]
        assert layers.in_flight_bytes() > 0
        # 8 examples on a device: half of them is half of it.
        assert estimate.stack_of(built, program, accumulate=2).kept_bytes() == layers.kept_bytes() / 2
        rows[remat]["kept"] = layers.kept_bytes()
    assert rows["full"]["kept"] < rows["none"]["kept"]
    assert rows["full"]["step_seconds"] > rows["none"]["step_seconds"]


def test_a_plan_by_arithmetic_touches_no_device():
    script = (
        "from vitax.__main__ import main; "
        "assert main(['plan', '--config', 'bit_i1k:R50x1', '--topology', 'v3:2x2', '--fast']) == 0; "
        "from jax._src import xla_bridge; assert not xla_bridge.backends_are_initialized()"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert "by arithmetic alone" in done.stdout
