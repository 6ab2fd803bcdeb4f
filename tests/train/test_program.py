"""Laws of the step: where it runs and how the batch is cut must not matter."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import tiny_config
from vitax import recipe
from vitax.core import metrics, tree
from vitax.core.errors import UserError
from vitax.layers.kernels import interpreting
from vitax.parallel.mesh import MeshSpec, build_mesh


def run(config, mesh, steps=3):
    """Losses and final state after a few steps."""
    built = recipe.build(config)
    program = built.program(mesh)
    pipeline = built.data.pipeline(built.seed)
    state, losses = program.init(), []
    for n in range(steps):
        state, measured = program.step(state, program.put(pipeline.batch(n)))
        losses.append(metrics.compute(measured))
    return losses, jax.device_get(state), program


def one_device():
    return build_mesh(MeshSpec(), jax.devices()[:1])


def close(a, b, rtol=1e-5, atol=1e-6):
    for (name, x), y in zip(tree.named_leaves(a), jax.tree.leaves(b)):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol, err_msg=name)


# SGD, because it is linear in the gradient. Adam turns the rounding noise of a gradient
# that is zero in theory (the bias of the keys) into updates of full size.
SGD = {"kind": "sgd", "lr": 0.1, "clip_norm": 1.0, "ema": 0.9}


@pytest.fixture(scope="module")
def reference():
    return run(tiny_config(optimizer=SGD), one_device())


@pytest.mark.parametrize(
    "mesh",
    [MeshSpec(data=2, fsdp=2, tensor=2), MeshSpec(replica=2, fsdp=4), MeshSpec(data=8)],
    ids=["data2-fsdp2-tensor2", "replica2-fsdp4", "data8"],
)
def test_sharded_equals_one_device(tiny, reference, mesh):
    losses, state, _ = run(tiny(optimizer=SGD), build_mesh(mesh))
    for got, want in zip(losses, reference[0]):
        assert got["loss"] == pytest.approx(want["loss"], rel=1e-5)
        assert got["accuracy"] == want["accuracy"]
    close(state, reference[1])


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_equals_the_whole_batch(tiny, reference, accumulate):
    losses, state, _ = run(tiny(optimizer=SGD, accumulate=accumulate), one_device())
    for got, want in zip(losses, reference[0]):
        assert got["loss"] == pytest.approx(want["loss"], rel=1e-5)
        assert got["accuracy"] == want["accuracy"]
    close(state, reference[1])


def test_accumulated_on_a_mesh_equals_one_device(tiny, reference):
    losses, _, _ = run(tiny(optimizer=SGD, accumulate=2), build_mesh(MeshSpec(data=2, fsdp=2, tensor=2)))
    assert [x["loss"] for x in losses] == pytest.approx([x["loss"] for x in reference[0]], rel=1e-5)


def test_the_pallas_kernel_on_a_mesh_in_microbatches_equals_one_device(tiny, reference):
    with interpreting():
        losses, state, program = run(
            tiny(optimizer=SGD, accumulate=2, model__attention_kernel="pallas"),
            build_mesh(MeshSpec(data=2, fsdp=2, tensor=2)),
        )
    assert "flat_attention_backward" in str(program.traced.jaxpr)
    assert [x["loss"] for x in losses] == pytest.approx([x["loss"] for x in reference[0]], rel=1e-5)
    close(state, reference[1])


def test_scanned_and_rematerialised_equal_plain(tiny, reference):
    losses, state, _ = run(tiny(optimizer=SGD, unroll=False, remat="full"), one_device())
    assert [x["loss"] for x in losses] == pytest.approx([x["loss"] for x in reference[0]], rel=1e-5)
    assert [n for n, _ in tree.named_leaves(state)] == [n for n, _ in tree.named_leaves(reference[1])]
    close(state, reference[1])


def test_same_seed_same_bits(tiny, reference):
    _, state, _ = run(tiny(optimizer=SGD), one_device())
    for (name, x), y in zip(tree.named_leaves(state), jax.tree.leaves(reference[1])):
        np.testing.assert_array_equal(x, y, err_msg=name)


def test_a_padded_row_changes_nothing(tiny):
    built = recipe.build(tiny(objective__mixup=0.0))
    program = built.program(one_device())
    batch = built.data.pipeline(built.seed).batch(0)
    batch["mask"] = np.arange(16) < 11
    junk = {**batch, "image": batch["image"].copy(), "label": batch["label"].copy()}
    junk["image"][11:] = 255 - junk["image"][11:]
    junk["label"][11:] = 3 - junk["label"][11:]
    _, a = program.step(program.init(), program.put(batch))
    _, b = program.step(program.init(), program.put(junk))
    assert metrics.compute(a) == metrics.compute(b)
    assert float(a["loss"].weight) == 11


def test_executed_flops_are_of_the_whole_mesh_and_of_the_whole_batch(tiny):
    """3 x forward without what no gradient reads; neither mesh nor accumulation nor scan moves it."""
    built = recipe.build(tiny())
    forward = built.forward_flops_per_example * 16
    plain = built.program(one_device()).executed_flops
    embedding = 2 * 16 * (4 * 4 * 3) * 32 * 16
    assert plain == 3 * forward - embedding
    for changes in ({"accumulate": 2}, {"unroll": False}):
        assert recipe.build(tiny(**changes)).program(one_device()).executed_flops == plain
    assert built.program(build_mesh(MeshSpec(data=2, fsdp=2, tensor=2))).executed_flops == plain
    assert recipe.build(tiny(remat="full")).program(one_device()).executed_flops > plain + 0.5 * forward


def test_the_step_is_traced_once_for_compiling_and_counting(tiny, monkeypatch):
    program, traces = recipe.build(tiny()).program(one_device()), []
    inner = program._step
    monkeypatch.setattr(program, "_step", lambda *args: traces.append(1) or inner(*args))
    assert program.compiled is not None
    assert program.executed_flops is not None
    assert program.lower() is not None
    assert traces == [1]


def test_the_step_compiles_once(tiny, caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING, "jax"):
        run(tiny(model__width=16), one_device(), steps=5)
    lines = [r.getMessage() for r in caplog.records if "Finished XLA compilation of jit(_step)" in r.getMessage()]
    assert len(lines) == 1


def test_state_is_spread_and_moments_follow_their_parameters(tiny):
    mesh = build_mesh(MeshSpec(data=2, fsdp=2, tensor=2))
    program = recipe.build(tiny()).program(mesh)
    specs = {n: x.sharding.spec for n, x in tree.named_leaves(program.abstract_state)}
    kernel = "encoder/block_00/mlp/in/kernel"
    assert specs[f"params/{kernel}"] == jax.P("fsdp", "tensor")
    moments = [s for n, s in specs.items() if n.startswith("opt_state/") and n.endswith(kernel)]
    assert moments == [jax.P("fsdp", "tensor")] * 2
    assert specs[f"ema/{kernel}"] == jax.P("fsdp", "tensor")
    state = program.init()
    for (name, leaf), want in zip(tree.named_leaves(state), jax.tree.leaves(program.abstract_state)):
        assert leaf.sharding.is_equivalent_to(want.sharding, leaf.ndim), name


def test_collectives_are_there_where_sharding_says_so(tiny):
    text = recipe.build(tiny()).program(build_mesh(MeshSpec(data=2, fsdp=2, tensor=2))).compiled.as_text()
    assert "all-gather" in text  # fsdp parameters
    assert "all-reduce" in text  # gradients over data
    assert "all-gather" not in recipe.build(tiny()).program(build_mesh(MeshSpec(data=8))).compiled.as_text()


def test_donated_state_leaves_no_copy(tiny):
    program = recipe.build(tiny()).program(one_device())
    state = program.init()
    new, _ = program.step(state, program.put(recipe.build(tiny()).data.pipeline(1).batch(0)))
    assert all(x.is_deleted() for x in jax.tree.leaves(state.params))
    assert int(new.step) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulate": 3}, "3 microbatches do not divide a batch of 16"),
        ({"data__batch_size": 12}, "nearest that do: 8 and 16"),
        ({"accumulate": 4}, "leave 4 each, which do not divide over 8 devices"),
    ],
)
def test_batches_that_do_not_divide_are_errors(tiny, changes, message):
    with pytest.raises(UserError, match=message):
        recipe.build(tiny(**changes)).program(build_mesh(MeshSpec(data=8)))


@pytest.mark.parametrize("kind", ["sgd", "rmsprop", "adam", "adafactor", "lamb", "lion", "muon"])
def test_every_optimiser_runs_sharded(tiny, kind):
    optimizer = {"kind": kind, "lr": 1e-3}
    mesh = build_mesh(MeshSpec(data=2, fsdp=2, tensor=2))
    # Without noise, of which other tests have enough: it doubles what is compiled.
    quiet = {"model__depth": 1, "model__dropout": 0.0, "model__stochastic_depth": 0.0, "objective__mixup": 0.0}
    losses, state, _ = run(tiny(optimizer=optimizer, accumulate=2, **quiet), mesh, steps=2)
    single, alone, _ = run(tiny(optimizer=optimizer, **quiet), one_device(), steps=2)
    assert losses[1]["loss"] == pytest.approx(single[1]["loss"], rel=1e-4)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state.params))
    assert jax.tree.structure(state) == jax.tree.structure(alone)
