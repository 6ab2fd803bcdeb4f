"""What `recipes --explain` says of a recipe, against the recipe itself."""

import json
import math
import subprocess
import sys

import jax
import numpy as np
import pytest

from vitax import explain, recipe
from vitax.core import tree
from vitax.core.errors import UserError


@pytest.fixture(scope="module")
def large():
    """The default paper recipe."""
    return recipe.load("vit_jft:L/16")


def test_lengths_are_in_steps(large):
    length = explain.explain(large)["length"]
    assert length["steps"] == round(14 * 303_000_000 / 4096)
    assert length["epochs"] == pytest.approx(14, rel=1e-6)
    assert length["examples"] == length["steps"] * 4096
    assert (length["log_every"], length["checkpoint_every"]) == (50, 5000)


def test_the_curve_is_the_schedule(large):
    rate = explain.explain(large)["learning_rate"]
    assert rate["warmup_steps"] == 10_000
    assert rate["step"][0] == 0
    assert rate["step"][-1] == large.total_steps - 1
    np.testing.assert_allclose(rate["value"], [float(large.learning_rate(s)) for s in rate["step"]], rtol=1e-6)


@pytest.mark.parametrize(
    ("scale", "stated", "paper", "big_vision"),
    [("lr", 0.1, 0.1, 4e-5), ("schedule", 4e-5, 0.1, 4e-5), ("gradient", 0.1, None, None)],
)
def test_weight_decay_in_both_conventions(scale, stated, paper, big_vision):
    overrides = [f"--config.optimizer.weight_decay={stated}", f"--config.optimizer.weight_decay_scale={scale}"]
    decay = explain.explain(recipe.load("vit_jft:L/16", overrides))["weight_decay"]
    for name, want in (("paper", paper), ("big_vision", big_vision)):
        assert decay[name] == (None if want is None else pytest.approx(want)), name


def test_both_conventions_are_the_same_update(tiny):
    """A decay restated in the other convention trains the same parameters."""
    lr, decay = 1e-3, 0.1
    updates = []
    for scale, value in (("lr", decay), ("schedule", decay * lr)):
        built = recipe.build(tiny(optimizer__weight_decay=value, optimizer__weight_decay_scale=scale))
        found = explain.explain(built)["weight_decay"]
        assert found["paper"] == pytest.approx(decay)
        assert found["big_vision"] == pytest.approx(decay * lr)
        params = jax.tree.map(lambda x: np.full(x.shape, 0.5, x.dtype), built.abstract_params)
        tx = built.optimizer.make(built.learning_rate, built.abstract_params)
        state = tx.init(params)
        for _ in range(3):
            update, state = tx.update(jax.tree.map(np.zeros_like, params), state, params)
        updates.append(update)
    for (name, x), y in zip(tree.named_leaves(updates[0]), jax.tree.leaves(updates[1])):
        np.testing.assert_allclose(x, y, rtol=1e-5, err_msg=name)


def test_parameters_are_collapsed_over_layers_and_none_is_lost(large):
    found = explain.explain(large)
    rows = {row["name"]: row for row in found["parameters"]}
    assert rows["encoder/block_*/attention/query/kernel"]["layers"] == 24
    assert rows["encoder/block_*/norm_1/scale"]["layers"] == 24
    assert not rows["encoder/block_*/norm_1/scale"]["decays"]
    assert rows["head/kernel"]["layers"] == 1
    assert sum(row["parameters"] for row in rows.values()) == tree.size(large.abstract_params)
    assert sum(row["layers"] for row in rows.values()) == len(jax.tree.leaves(large.abstract_params))
    decay = found["weight_decay"]
    assert decay["parameters"] == sum(row["parameters"] for row in rows.values() if row["decays"])


def test_what_acts_on_some_layers_alone_is_told_apart(tiny):
    found = explain.explain(recipe.build(tiny(optimizer__frozen=("block_00/",), optimizer__layer_decay=0.5)))
    frozen = [row for row in found["parameters"] if row["frozen"]]
    assert {row["layers"] for row in frozen} == {1}
    assert all("block_00" in row["name"] for row in frozen)
    found = explain.explain(recipe.build(tiny(optimizer__layer_decay=0.5)))
    assert {tuple(r["lr_multiplier"]) for r in found["parameters"] if "block_*" in r["name"]} == {(0.25, 0.5)}


def test_bytes_a_device_are_those_of_the_program(large):
    sharded = recipe.load("vit_jft:L/16", ["--config.mesh.fsdp=8", "--config.mesh.tensor=2"])
    one, many = (explain.explain(large)["sharding"], explain.explain(sharded, 32)["sharding"])
    assert many["mesh"] == {"replica": 1, "data": 2, "fsdp": 8, "tensor": 2}
    rows = {row["name"]: row for row in many["parameters"]}
    assert rows["encoder/block_*/mlp/in/kernel"]["partition"] == ["fsdp", "tensor"]
    assert rows["encoder/block_*/mlp/in/kernel"]["bytes_a_device"] == 24 * 1024 * 4096 * 4 / 16
    assert sum(r["bytes_a_device"] for r in one["parameters"]) == one["state_bytes_a_device"]["parameters"]
    assert sum(r["bytes_a_device"] for r in many["parameters"]) == many["state_bytes_a_device"]["parameters"]
    assert any("head/kernel" in line for line in many["replicated"])


def test_a_mesh_that_does_not_fit_says_so(large):
    with pytest.raises(UserError, match="does not use the 6 devices"):
        explain.explain(recipe.load("vit_jft:L/16", ["--config.mesh.fsdp=4"]), 6)
    with pytest.raises(UserError, match="--devices 0"):
        explain.explain(large, 0)


@pytest.mark.parametrize("name", ["vit_jft:H/14", "quickstart:finetune", "vit_finetune:cifar100"])
def test_the_text_is_at_most_80_columns_wide(name):
    long = [line for line in explain.lines(explain.explain(recipe.load(name))) if len(line) > 80]
    assert not long


def test_a_curve_rises_and_falls_as_the_values_do():
    drawn = explain.curve([0, 1, 2, 3], [0.0, 1.0, 0.5, 0.0], 1.0, height=4)
    assert len(drawn) == 6
    bars = [line[11:] for line in drawn[:4]]
    assert bars[0].strip() == bars[1].strip() != ""
    assert len(bars[3].strip()) == pytest.approx(2 * len(bars[0].strip()), abs=1)
    assert drawn[0].startswith(" 1.00e+00 ┤")
    assert all(len(line) <= 80 for line in drawn)
    assert not "".join(line[11:] for line in explain.curve([0, 1], [0.0, 0.0], 0.0)[:8]).strip()


def test_intervals_count_the_end():
    assert explain._every(200, 30) == "200 steps (1 time, the end included)"
    assert explain._every(50, 100).startswith("50 steps (2 times")
    assert explain._every(156.25, 2500).startswith("156.25 steps (16 times")


def test_no_device_is_started_to_explain():
    script = (
        "import json; from vitax import explain, recipe; "
        "from jax._src import xla_bridge; "
        "found = recipe.load('vit_jft:B/32'); explain._sharding(found, 8); "
        "assert not xla_bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_it_is_plain_data(large):
    assert json.loads(json.dumps(explain.explain(large)))["name"] == "vit_jft:L/16"
    assert math.isfinite(sum(explain.explain(large)["learning_rate"]["value"]))
