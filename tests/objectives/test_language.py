"""A language model through the ordinary program: exact on any tail, refused on images."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conftest import tiny_config
from tests.tokenizer_files import write_wordpiece
from vitax import recipe
from vitax.core import metrics
from vitax.core.errors import UserError
from vitax.data.tokenizers import Bytes
from vitax.evaluators import language
from vitax.parallel.mesh import MeshSpec, build_mesh


def config(tmp_path, **changes):
    (tmp_path / "text.txt").write_text("to be or not to be--that is the question--whether tis nobler in the mind" * 3)
    source = {"kind": "text", "path": str(tmp_path / "text.txt"), "separator": "--"}
    data = {"source": source, "num_examples": 14, "length": 16, "batch_size": 8}
    evaluator = {"kind": "language", "data": {"source": source, "num_examples": 14, "batch_size": 4}}
    plain = tiny_config(
        model={"kind": "gpt", "width": 16, "depth": 1, "mlp_dim": 32, "num_heads": 2, "dropout": 0.1},
        objective={"kind": "language_model"},
        data=data,
        evaluators={"val": evaluator},
    )
    for key, value in changes.items():
        part, _, field = key.partition("__")
        plain[part] = plain[part] | {field: value} if field else value
    return plain


def program_of(built, devices=1):
    return built.program(build_mesh(MeshSpec(data=devices), jax.devices()[:devices]))


def test_two_steps_and_an_exact_evaluation(tmp_path):
    built = recipe.build(config(tmp_path))
    program = program_of(built)
    pipeline = built.data.pipeline(built.seed)
    state = program.init()
    for n in range(2):
        state, measured = program.step(state, program.put(pipeline.batch(n)))
        assert all(math.isfinite(v) for v in metrics.compute(measured).values())
    [(evaluator, _)] = built.evaluators()
    values = evaluator.build(program)(state)
    # By hand, window by window, token by token.
    source = pipeline.source
    total, count = 0.0, 0
    for i in range(len(source)):
        window = source[i]
        logits = program.objective.model.apply(
            {"params": state.params}, window["tokens"][None], segment_ids=jnp.asarray(window["segment_ids"])[None]
        ).logits[0]
        logs = np.asarray(jax.nn.log_softmax(logits))
        real = window["segment_ids"] > 0
        total -= float(logs[np.arange(16), window["targets"]][real].sum())
        count += int(real.sum())
    assert count == len(source.stream) - 1
    assert values["loss"] == pytest.approx(total / count, rel=1e-5)
    assert values["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    in_bytes = int((source.stream[1:] < 256).sum())
    assert values["bits_per_byte"] == pytest.approx(total / math.log(2) / in_bytes, rel=1e-5)
    assert values.keys() >= {"ema/loss", "ema/perplexity", "ema/bits_per_byte"}


def test_bytes_are_counted_where_tokens_hold_them_all(tmp_path):
    built = recipe.build(config(tmp_path))
    program = program_of(built)
    for tokenizer, counted in ((Bytes(), True), (write_wordpiece(tmp_path / "vocab.txt"), False)):
        measure = language.make_measure(program, tokenizer)
        values = jax.eval_shape(measure, program.abstract_state.params, {}, built.batch_spec)
        assert ("bits_per_byte" in values, "loss" in values) == (counted, True)


def test_batch_size_devices_and_accumulation_change_nothing(tmp_path):
    results = []
    for devices, accumulate, batch in ((1, 1, 4), (4, 2, 5)):
        plain = config(tmp_path, accumulate=accumulate)
        plain["evaluators"]["val"]["data"]["batch_size"] = batch
        built = recipe.build(plain)
        program = program_of(built, devices)
        state, measured = program.step(program.init(), program.put(built.data.pipeline(built.seed).batch(0)))
        [(evaluator, _)] = built.evaluators()
        results.append(metrics.compute(measured) | evaluator.build(program)(state))
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, rel=2e-5), name


def test_text_and_images_do_not_mix(tmp_path):
    with pytest.raises(UserError, match=r'model.kind: "vit" does not take text.*Kinds that do: gpt'):
        recipe.build(config(tmp_path, model=tiny_config()["model"]))
    with pytest.raises(UserError, match=r'objective.kind: "classification" does not take text.*language_model'):
        recipe.build(config(tmp_path, objective={"kind": "classification"}))
    plain = tiny_config(objective={"kind": "language_model"})
    with pytest.raises(UserError, match=r'"language_model" does not take images.*classification, distillation'):
        recipe.build(plain)
    plain = config(tmp_path)
    plain["evaluators"]["val"]["kind"] = "classification"
    with pytest.raises(UserError, match=r'evaluators.val.kind: "classification" does not take text.*that do: language'):
        recipe.build(plain)
    plain = config(tmp_path)
    plain["evaluators"]["val"]["data"]["source"] = {"kind": "synthetic"}
    with pytest.raises(UserError, match=r"evaluators.val.data.source.kind.*Valid: embedded_text, json_lines, text"):
        recipe.build(plain)


def test_a_resume_on_other_text_is_refused(tmp_path):
    built = recipe.build(config(tmp_path))
    other = recipe.build(config(tmp_path, data__length=8))
    assert any(line.startswith("data.length") for line in recipe.resume_differences(built.config, other))
