"""Masked tokens and next sentences through the ordinary program: the two means, exactly."""

import jax
import numpy as np
import pytest

from tests import pieces
from tests.conftest import tiny_config
from vitax import recipe
from vitax.core import metrics
from vitax.core.errors import UserError
from vitax.parallel.mesh import MeshSpec, build_mesh

VOCAB_SIZE = len(pieces.TOKENS)


def config(tmp_path, **changes):
    lines = ["b c d", "ef gh", "the a and", "is not", "k l m n o p", "good film", "bad"]
    text = "\n\n".join("\n".join(lines[d % 3 :] * 7) for d in range(3))
    (tmp_path / "text.txt").write_text(text)
    source = {"kind": "documents", "path": str(tmp_path / "text.txt")}
    tokenizer = {"kind": "wordpiece", "path": pieces.write(tmp_path)}
    data = {
        "source": source,
        "num_examples": 14,
        "length": 32,
        "batch_size": 8,
        "max_predictions": 5,
        "short_rate": 0.6,
    }
    evaluator = {"kind": "masked_language", "data": {"source": source, "num_examples": 14, "batch_size": 4}}
    plain = tiny_config(
        model={"kind": "bert", "width": 16, "depth": 1, "mlp_dim": 32, "num_heads": 2, "dropout": 0.1},
        objective={"kind": "masked_language_model"},
        data=data | {"vocab_size": VOCAB_SIZE, "tokenizer": tokenizer},
        evaluators={"val": evaluator},
    )
    for key, value in changes.items():
        part, _, field = key.partition("__")
        plain[part] = plain[part] | {field: value} if field else value
    return plain


def program_of(built, devices=1):
    return built.program(build_mesh(MeshSpec(data=devices), jax.devices()[:devices]))


def by_hand(objective, params, batches):
    """(loss and accuracy of masked tokens, loss and accuracy of next sentences), example by example."""
    tokens, follows = [], []
    for batch in batches:
        for i in np.flatnonzero(batch["mask"]):
            row = {k: v[i : i + 1] for k, v in batch.items()}
            out = objective.model.apply(
                {"params": params}, row["tokens"], segment_ids=row["segment_ids"], token_types=row["token_types"]
            )
            logs = np.asarray(jax.nn.log_softmax(out.logits[0]))
            for position, target, weight in zip(
                row["masked_positions"][0], row["masked_targets"][0], row["masked_weights"][0]
            ):
                if weight:
                    tokens.append((-logs[position, target], logs[position].argmax() == target))
            logs = np.asarray(jax.nn.log_softmax(out.intermediates["next_sentence"][0]))
            follows.append((-logs[row["next_sentence"][0]], logs.argmax() == row["next_sentence"][0]))
    return (*np.mean(tokens, 0), *np.mean(follows, 0))


def test_an_evaluation_is_the_sum_of_two_exact_means(tmp_path):
    built = recipe.build(config(tmp_path))
    program = program_of(built)
    [(evaluator, _)] = built.evaluators()
    state = program.init()
    values = evaluator.build(program)(state)
    want = by_hand(program.objective, state.params, evaluator.pipeline.eval_batches(14))
    names = ("masked_loss", "accuracy", "next_sentence_loss", "next_sentence_accuracy")
    np.testing.assert_allclose([values[n] for n in names], want, rtol=1e-5)
    assert values["loss"] == pytest.approx(want[0] + want[2], rel=1e-5)
    assert values["ema/loss"] == pytest.approx(values["loss"])


def test_the_training_loss_is_both_means_whatever_the_microbatches_and_devices(tmp_path):
    results = []
    for devices, accumulate in ((1, 1), (1, 4), (4, 2)):
        built = recipe.build(config(tmp_path, accumulate=accumulate, model__dropout=0.0))
        program = program_of(built, devices)
        batch = built.data.pipeline(built.seed).batch(0)
        if not results:
            want = by_hand(program.objective, program.init().params, [batch])
        state, measured = program.step(program.init(), program.put(batch))
        values = metrics.compute(measured)
        assert values["loss"] == pytest.approx(want[0] + want[2], rel=1e-5)
        assert values["masked_loss"] == pytest.approx(want[0], rel=1e-5)
        results.append((values, state.params))
    # Microbatches have different numbers of masked tokens.
    weights = batch["masked_weights"].sum(1)
    assert len({weights[k::4].sum() for k in range(4)}) > 1
    for values, params in results[1:]:
        assert values["grad_norm"] == pytest.approx(results[0][0]["grad_norm"], rel=1e-5)
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(results[0][1])):
            np.testing.assert_allclose(a, b, atol=2e-5)


def test_masked_tokens_alone(tmp_path):
    built = recipe.build(config(tmp_path, data__next_sentence=False))
    program = program_of(built)
    _, measured = program.step(program.init(), program.put(built.data.pipeline(built.seed).batch(0)))
    values = metrics.compute(measured)
    assert values["loss"] == pytest.approx(values["masked_loss"], rel=1e-6)
    assert "next_sentence_loss" not in values


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'model.head: "span", but data.next_sentence asks for "pretraining"'):
        recipe.build(config(tmp_path, model__head="span"))
    with pytest.raises(UserError, match=r'"language_model" does not take masked documents.*masked_language_model'):
        recipe.build(config(tmp_path, objective={"kind": "language_model"}))
    with pytest.raises(UserError, match="data.mask_rate: expected from 0 to below 1, got 1.5"):
        recipe.build(config(tmp_path, data__mask_rate=1.5))
    with pytest.raises(UserError, match="holds 14 chunks of 32 tokens"):
        recipe.build(config(tmp_path, data__num_examples=3)).source("data")
