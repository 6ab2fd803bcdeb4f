"""A model with BatchNorm in the loop: statistics of the global batch, carried wherever parameters go."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import tiny_config
from tests.train.test_program import close, one_device, run
from vitax import infer, recipe
from vitax.__main__ import main
from vitax.checkpoint import export, store
from vitax.core import metrics, tree
from vitax.core.errors import UserError
from vitax.parallel.mesh import MeshSpec, build_mesh

MODEL = {
    "kind": "efficientnet",
    "stages": ((3, 1, 1, 8, 1), (3, 2, 2, 8, 1)),
    "stem_channels": 8,
    "top_channels": 16,
    "dropout": 0.1,
    "stochastic_depth": 0.2,
    "norm_momentum": 0.8,
}
SGD = {"kind": "sgd", "lr": 0.1, "clip_norm": 1.0, "ema": 0.9}
MEAN = "batch_stats/stem/norm/mean"


def conv_config(**changes):
    return tiny_config(**{"model": MODEL, "optimizer": SGD, "schedule": {"kind": "constant"}, **changes})


@pytest.fixture(scope="module")
def reference():
    return run(conv_config(), one_device())


def test_sharded_equals_one_device(reference):
    losses, state, program = run(conv_config(), build_mesh(MeshSpec(data=2, fsdp=2, tensor=2)))
    for got, want in zip(losses, reference[0]):
        assert got["loss"] == pytest.approx(want["loss"], rel=1e-5)
    close(state, reference[1])
    specs = {n: x.sharding.spec for n, x in tree.named_leaves(program.abstract_state)}
    block = "stage_2/block_01"
    assert specs[f"params/{block}/expand/kernel"] == jax.P(None, None, "fsdp", "tensor")
    assert specs[f"mutables/batch_stats/{block}/depthwise_norm/mean"] == jax.P("tensor")
    assert specs[f"ema_mutables/batch_stats/{block}/depthwise_norm/mean"] == jax.P("tensor")


@pytest.fixture(scope="module")
def halves():
    """A program of two microbatches, its first batch, and where it starts."""
    built = recipe.build(conv_config(accumulate=2, objective__mixup=0.0))
    program = built.program(one_device())
    return program, built.data.pipeline(built.seed).batch(0), jax.device_get(program.init())


def stem_moments(program, state, images):
    """Mean and variance of what enters the first norm, in double precision."""
    images = program.objective.scale(images)
    kernel = state.params["stem"]["conv"]["kernel"]
    y = jax.lax.conv_general_dilated(images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    y = np.asarray(y, np.float64).reshape(-1, y.shape[-1])
    return {"mean": y.mean(0), "var": y.var(0)}


def test_microbatches_normalise_themselves_and_move_the_statistics_in_turn(halves):
    """The stated exception to "accumulated = whole batch"."""
    program, batch, start = halves
    state, measured = program.step(jax.device_put(start), program.put(batch))
    got = state.mutables["batch_stats"]["stem"]["norm"]
    in_turn = whole = start.mutables["batch_stats"]["stem"]["norm"]
    for part in (0, 1):  # row r goes to microbatch r % 2
        moments = stem_moments(program, start, batch["image"][part::2])
        in_turn = {k: 0.8 * in_turn[k] + 0.2 * moments[k] for k in moments}
    moments = stem_moments(program, start, batch["image"])
    whole = {k: 0.8 * whole[k] + 0.2 * moments[k] for k in moments}
    close(got, in_turn)
    assert np.abs(got["mean"] - whole["mean"]).max() > 1e-3
    assert float(measured["loss"].weight) == 16


def test_a_padded_row_changes_nothing(halves):
    program, batch, start = halves
    batch = {**batch, "mask": np.arange(16) < 11}
    junk = {**batch, "image": batch["image"].copy()}
    junk["image"][11:] = 255 - junk["image"][11:]
    a, measured_a = program.step(jax.device_put(start), program.put(batch))
    b, measured_b = program.step(jax.device_put(start), program.put(junk))
    assert metrics.compute(measured_a) == metrics.compute(measured_b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_array_equal(x, y)
    # And what the real rows say is what moves the statistics.
    got, want = a.mutables["batch_stats"]["stem"]["norm"], start.mutables["batch_stats"]["stem"]["norm"]
    for rows in (batch["image"][0:11:2], batch["image"][1:11:2]):
        want = {k: 0.8 * want[k] + 0.2 * v for k, v in stem_moments(program, start, rows).items()}
    close(got, want)


def test_statistics_are_averaged_like_the_parameters(reference):
    built, program = recipe.build(conv_config()), reference[2]
    state, pipeline = program.init(), built.data.pipeline(built.seed)
    want = jax.device_get(state.mutables)
    for n in range(3):
        state, _ = program.step(state, program.put(pipeline.batch(n)))
        want = jax.tree.map(lambda a, x: 0.9 * a + 0.1 * np.asarray(x), want, state.mutables)
    close(state.ema_mutables, want)
    gap = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.ema_mutables, state.mutables)
    assert max(jax.tree.leaves(gap)) > 0.01
    # And the evaluator takes each pair together.
    evaluator = built.evaluators()[0][0]
    values = evaluator.build(program)(state)
    alone = state.replace(params=state.ema, mutables=state.ema_mutables)
    assert values["ema/loss"] == evaluator.build(program)(alone)["loss"]
    mixed = state.replace(params=state.ema)
    assert values["ema/loss"] != evaluator.build(program)(mixed)["loss"]


def train(folder, name, *overrides, **changes):
    path = folder / f"{name}.json"
    path.write_text(json.dumps(conv_config(checkpoint={"every": {"steps": 2}}, **changes)))
    return main(["train", "--config", str(path), "--workdir", str(folder / name), *overrides])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conv")
    assert train(folder, "run", "--config.duration.steps=4") == 0
    return folder / "run"


def test_resumed_equals_straight(tmp_path, trained):
    assert train(tmp_path, "run", "--config.duration.steps=2") == 0
    assert train(tmp_path, "run", "--config.duration.steps=4") == 0
    _, resumed = store.read_metadata(tmp_path / "run" / "checkpoints", 4)
    _, straight = store.read_metadata(trained / "checkpoints", 4)
    assert resumed == straight
    roots = {name.partition("/")[0] for name in straight}
    assert roots == {"step", "params", "mutables", "opt_state", "ema", "ema_mutables"}


def test_another_number_of_microbatches_is_another_run(trained, capsys):
    assert train(trained.parent, "run", "--config.accumulate=2") == 2
    assert "accumulate: '(default)' -> 2" in capsys.readouterr().err


def test_a_checkpoint_is_evaluated_with_its_averaged_statistics(trained):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    last = next(row for row in reversed(rows) if "val/ema/loss" in row)
    done = infer.evaluate(str(trained))
    assert done["weights"] == "ema"
    assert done["metrics"]["val/loss"] == pytest.approx(last["val/ema/loss"], rel=1e-6)


@pytest.mark.parametrize("root", ["ema", "params"])
def test_exported_statistics_are_those_of_the_exported_parameters(trained, tmp_path, root):
    row = export.export(trained / "checkpoints", 4, tmp_path / "w.npz", root)
    _, _, state, _ = infer.load(str(trained))
    with np.load(tmp_path / "w.npz") as file:
        same = np.array_equal(file[MEAN], np.asarray(state.mutables["batch_stats"]["stem"]["norm"]["mean"]))
        assert {n.partition("/")[0] for n in file} >= {"batch_stats", "stem", "head"}
    assert same == (root == "ema")
    assert row["parameters"] == tree.size(state.params)
    assert row["arrays"] == len(jax.tree.leaves((state.params, state.mutables)))


def test_a_warm_start_takes_the_statistics_over_and_lists_them(trained, tmp_path):
    assert train(tmp_path, "next", "--config.duration.steps=1", f"--config.init_from.checkpoint={trained}") == 0
    told = json.loads((tmp_path / "next" / "warm_start.json").read_text())
    assert MEAN in told["placed"]
    assert "stem/conv/kernel" in told["placed"]
    assert [line.split()[0] for line in told["reset"]] == ["head/bias", "head/kernel"]
    # One step from the source's averages, not from zero.
    _, _, before, _ = infer.load(str(trained))
    _, _, after, _ = infer.load(str(tmp_path / "next"))
    old, new = (np.asarray(s.mutables["batch_stats"]["stem"]["norm"]["var"]) for s in (before, after))
    assert (np.abs(new - old) < 0.5 * np.abs(new - 1.0)).all()


def test_statistics_of_another_shape_are_an_error(trained, tmp_path, capsys):
    wide = {**MODEL, "stem_channels": 16}
    override = f"--config.init_from.checkpoint={trained}"
    assert train(tmp_path, "wide", "--config.duration.steps=1", override, model=wide) == 2
    assert f"{MEAN}: the source has float32[8], the model float32[16]" in capsys.readouterr().err
    with pytest.raises(UserError, match="does not hold this model"):
        infer.load(str(trained), ["--config.model.stem_channels=16"])
