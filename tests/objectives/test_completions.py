"""Learning completions: the prompt's targets never reach the loss, and rows are as good as single pairs."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import tiny_config
from vitax import recipe
from vitax.core import metrics
from vitax.core.errors import UserError
from vitax.parallel.mesh import MeshSpec, build_mesh

PAIRS = [("two and two", "four"), ("a", "b c d"), ("the sea", "is wide"), ("to be", "or not"), ("x", "y")]
T = 24


def config(tmp_path, **changes):
    lines = [json.dumps({"prompt": prompt, "completion": completion}) for prompt, completion in PAIRS]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    source = {"kind": "prompt_completion", "path": str(tmp_path / "pairs.jsonl")}
    data = {"source": source, "num_examples": 3, "length": T, "batch_size": 2, "shuffle": False}
    return tiny_config(
        model={"kind": "gpt", "width": 16, "depth": 1, "mlp_dim": 32, "num_heads": 2},
        objective={"kind": "language_model"},
        data=data,
        evaluators={"val": {"kind": "language", "data": {"source": source, "num_examples": 3, "batch_size": 2}}},
        **changes,
    )


@pytest.fixture
def made(tmp_path):
    built = recipe.build(config(tmp_path))
    program = built.program(build_mesh(MeshSpec(), jax.devices()[:1]))
    return built, program, program.init()


def test_a_prompts_targets_never_reach_the_loss(made):
    built, program, state = made
    batch = built.data.pipeline(built.seed).batch(0)
    changed = {**batch, "targets": np.where(batch["loss_mask"], batch["targets"], 7)}
    assert (changed["targets"] != batch["targets"]).any()

    def loss(params, batch):
        out = program.objective.loss({"params": params}, batch, jax.random.key(0), train=False)
        return out.loss.compute(), out.metrics["accuracy"].compute()

    compute = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for a, b in zip(jax.tree.leaves(compute(state.params, batch)), jax.tree.leaves(compute(state.params, changed))):
        np.testing.assert_array_equal(a, b)
    # And a completion's do.
    changed = {**batch, "targets": np.where(batch["loss_mask"], 7, batch["targets"])}
    assert compute(state.params, batch)[0][0] != compute(state.params, changed)[0][0]


def test_steps_and_an_exact_evaluation_of_completions(made):
    built, program, state = made
    pipeline = built.data.pipeline(built.seed)
    for n in range(2):
        state, measured = program.step(state, program.put(pipeline.batch(n)))
        assert all(math.isfinite(v) for v in metrics.compute(measured).values())
    [(evaluator, _)] = built.evaluators()
    values = evaluator.build(program)(state)
    # Each pair alone in a row, by hand.
    whole = [np.array([256, *f"{prompt}{completion}".encode(), 256]) for prompt, completion in PAIRS]
    rows = np.stack([np.pad(tokens, (0, T + 1 - len(tokens))) for tokens in whole])
    lengths = np.array([len(tokens) - 1 for tokens in whole])
    logits = jax.jit(lambda p, x, s: program.objective.model.apply({"params": p}, x, segment_ids=s).logits)(
        state.params, jnp.asarray(rows[:, :-1]), (np.arange(T) < lengths[:, None]).astype(np.int32)
    )
    logs = np.asarray(jax.nn.log_softmax(logits))
    of_target = np.take_along_axis(logs, rows[:, 1:, None], 2)[..., 0]
    firsts = np.array([len(prompt) for prompt, _ in PAIRS])[:, None]
    counted = (np.arange(T) >= firsts) & (np.arange(T) < lengths[:, None])
    total, count = -of_target[counted].sum(), counted.sum()
    assert values["loss"] == pytest.approx(total / count, rel=1e-5)
    in_bytes = sum(len(completion) for _, completion in PAIRS)
    assert values["bits_per_byte"] == pytest.approx(total / math.log(2) / in_bytes, rel=1e-5)


def test_prompts_are_for_language_models(tmp_path):
    with pytest.raises(UserError, match=r'"classification" does not take prompts.*language_model'):
        recipe.build(config(tmp_path) | {"objective": {"kind": "classification"}})
