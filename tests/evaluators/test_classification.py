"""Evaluation is exact on any tail, batch size and number of devices."""

import jax
import numpy as np
import pytest

from vitax import recipe
from vitax.evaluators.classification import predictions
from vitax.parallel.mesh import MeshSpec, build_mesh


@pytest.fixture(scope="module")
def by_hand():
    """Metrics in NumPy from the logits of single examples."""
    built, state, program = setup(1, MeshSpec())
    objective, source = program.objective, built.evaluators()[0][0].pipeline.source
    logits, labels = [], []
    for i in range(len(source)):
        example = source[i]
        image = objective.scale(np.asarray(example["image"])[None])
        logits.append(np.asarray(objective.model.apply({"params": state.params}, image).logits[0], np.float64))
        labels.append(example["label"])
    logits, labels = np.stack(logits), np.array(labels)
    nll = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(labels)), labels]
    order = np.argsort(-logits, -1)
    return {
        "loss": nll.mean(),
        "accuracy": (order[:, 0] == labels).mean(),
        "top2_accuracy": (order[:, :2] == labels[:, None]).any(-1).mean(),
    }


def setup(devices, mesh, batch_size=16, **changes):
    from tests.conftest import tiny_config

    config = tiny_config(**changes)
    config["optimizer"]["ema"] = None
    config["evaluators"]["val"] |= {"topk": 2}
    config["evaluators"]["val"]["data"]["batch_size"] = batch_size
    built = recipe.build(config)
    program = built.program(build_mesh(mesh, jax.devices()[:devices]))
    return built, program.init(), program


@pytest.mark.parametrize(
    ("devices", "mesh", "batch_size"),
    [
        (1, MeshSpec(), 16),
        (1, MeshSpec(), 7),
        (1, MeshSpec(), 64),
        (8, MeshSpec(data=2, fsdp=2, tensor=2), 8),
        (8, MeshSpec(), 16),
        (8, MeshSpec(), 5),  # padded to what the devices divide
    ],
)
def test_every_example_counts_once(by_hand, devices, mesh, batch_size):
    built, state, program = setup(devices, mesh, batch_size)
    got = built.evaluators()[0][0].build(program)(state)
    assert got["accuracy"] == pytest.approx(by_hand["accuracy"], abs=1e-9)
    assert got["top2_accuracy"] == pytest.approx(by_hand["top2_accuracy"], abs=1e-9)
    assert got["loss"] == pytest.approx(by_hand["loss"], rel=1e-5)


def test_averaged_parameters_are_measured_beside_the_raw_ones(tiny):
    built = recipe.build(tiny())
    program = built.program(build_mesh(MeshSpec(), jax.devices()[:1]))
    state = program.init()
    moved = state.replace(ema=jax.tree.map(lambda x: x + 0.3, state.params))
    got = built.evaluators()[0][0].build(program)(moved)
    assert got["loss"] != got["ema/loss"]


def test_predictions_leave_the_padding_out(tiny):
    built = recipe.build(tiny())
    program = built.program(build_mesh(MeshSpec(), jax.devices()[:1]))
    parts = list(predictions(program, program.init(), built.evaluators()[0][0].pipeline))
    assert sum(len(p) for p, _ in parts) == 21
    assert np.concatenate([b["index"] for _, b in parts]).tolist() == list(range(21))
