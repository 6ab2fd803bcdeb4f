"""Classes of texts and spans of answers through the ordinary program, exact on any tail."""

import jax
import numpy as np
import pytest

from tests import pieces
from tests.conftest import tiny_config
from tests.questions import CONTEXT, squad
from vitax import recipe
from vitax.core import metrics
from vitax.core.errors import UserError
from vitax.data import answers
from vitax.evaluators import text
from vitax.parallel.mesh import MeshSpec, build_mesh

MODEL = {"kind": "bert", "width": 16, "depth": 1, "mlp_dim": 32, "num_heads": 2, "dropout": 0.1}


def config(tmp_path, source, objective, evaluator, **data):
    shared = {
        "vocab_size": len(pieces.TOKENS),
        "tokenizer": {"kind": "wordpiece", "path": pieces.write(tmp_path)},
        "source": source,
        "batch_size": 8,
        **data,
    }
    return tiny_config(
        model=MODEL,
        objective={"kind": objective},
        data=shared,
        evaluators={
            "val": {"data": {k: shared[k] for k in ("source", "num_examples")} | {"batch_size": 4}, **evaluator}
        },
    )


def classes(tmp_path, num_classes=2):
    rows = [f"{'good' if i % 3 else 'bad'} film {'and' * (i % 4)},{i % max(num_classes, 2)}" for i in range(13)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows]))
    source = {"kind": "text_table", "path": str(tmp_path / "t.csv")}
    data = {"num_examples": 13, "length": 12, "num_classes": num_classes}
    return config(tmp_path, source, "text_classification", {"kind": "text_classification"}, **data)


def questions(tmp_path, **evaluator):
    found = [("q1", "who was it?", [("Good one", CONTEXT.index("Good one"))]), ("q2", "who is not?", [])]
    (tmp_path / "s.json").write_text(squad(CONTEXT, *found))
    source = {"kind": "squad", "path": str(tmp_path / "s.json"), "stride": 7}
    return config(tmp_path, source, "span", {"kind": "span", **evaluator}, num_examples=10, length=20)


def program_of(built, devices=1):
    return built.program(build_mesh(MeshSpec(data=devices), jax.devices()[:devices]))


def step(built, devices=1):
    """A program, its state after a step, and what the step measured."""
    program = program_of(built, devices)
    state, measured = program.step(program.init(), program.put(built.data.pipeline(built.seed).batch(0)))
    return program, state, metrics.compute(measured)


def logits_of(program, params, batch):
    out = program.objective.model.apply(
        {"params": params}, batch["tokens"], segment_ids=batch["segment_ids"], token_types=batch["token_types"]
    )
    return np.asarray(out.logits)


@pytest.mark.parametrize("num_classes", [1, 2])
def test_classes_are_evaluated_exactly(tmp_path, num_classes):
    built = recipe.build(classes(tmp_path, num_classes))
    program, state, measured = step(built)
    [(evaluator, _)] = built.evaluators()
    values = evaluator.build(program)(state)
    [whole] = evaluator.pipeline.eval_batches(13)
    logits = logits_of(program, state.params, whole)
    label = whole["label"]
    if num_classes == 1:
        assert values["loss"] == pytest.approx(np.square(logits[:, 0] - label).mean(), rel=1e-5)
        assert "accuracy" not in values
        assert "accuracy" not in measured
        return
    logs = np.asarray(jax.nn.log_softmax(logits))
    guess = logits.argmax(-1)
    assert values["loss"] == pytest.approx(-logs[np.arange(13), label].mean(), rel=1e-5)
    assert values["accuracy"] == pytest.approx((guess == label).mean())
    both, found, there = ((guess == 1) & (label == 1)).sum(), (guess == 1).sum(), (label == 1).sum()
    assert values["f1"] == pytest.approx(2 * both / (found + there))


def test_f1_by_hand_over_padded_batches(tmp_path):
    built = recipe.build(classes(tmp_path))
    program = program_of(built)
    measure = text.make_measure(program)
    guess = np.array([[1, 1, 0, 0], [1, 0, 1, 1]])
    batches = [
        {"label": np.array([1, 0, 1, 0]), "mask": np.array([True] * 4)},
        {"label": np.array([1, 1, 1, 0]), "mask": np.array([True, True, False, False])},
    ]
    parts = [measure(np.eye(2, dtype=np.float32)[g], b)["f1"] for g, b in zip(guess, batches)]
    # Found and there 2, found 3, there 4.
    assert float((parts[0] + parts[1]).compute()) == pytest.approx(2 * 2 / (3 + 4))


def test_f1_of_none_found_and_none_there_is_zero(tmp_path, monkeypatch):
    built = recipe.build(classes(tmp_path))
    program = program_of(built)
    monkeypatch.setattr(text, "over_all", lambda *_: lambda state: {"f1": float("nan"), "accuracy": 1.0})
    [(evaluator, _)] = built.evaluators()
    assert evaluator.build(program)(None) == {"f1": 0.0, "accuracy": 1.0}


@pytest.mark.parametrize("threshold", [None, 0.0, -1e9])
def test_answers_are_evaluated_by_question(tmp_path, threshold):
    built = recipe.build(questions(tmp_path, null_threshold=threshold))
    program, state, _ = step(built)
    [(evaluator, _)] = built.evaluators()
    values = evaluator.build(program)(state)
    source = evaluator.pipeline.source
    rows = [logits_of(program, state.params, {k: v[None] for k, v in source[i].items()})[0] for i in range(len(source))]
    wanted = []
    for number, question in enumerate(source.questions):
        windows = []
        for row, w in zip(rows, source.windows):
            if w.question == number:
                real = w.offset + w.size + 1
                padded = np.full_like(row, -np.inf)
                padded[:real] = row[:real]
                windows.append(answers.Scores(padded[:, 0], padded[:, 1], w.first, w.size, w.offset))
        best = answers.best_answer(CONTEXT, source.letters(number), windows)
        told = "" if threshold is not None and best.null_score - best.score > threshold else best.text
        gold = answers.accepted(question.answers)
        wanted.append((answers.exact_match(told, gold), answers.f1(told, gold), told != ""))
    got = [values[n] for n in ("exact_match", "f1", "answered")]
    np.testing.assert_allclose(got, np.mean(wanted, 0), rtol=1e-6)
    if threshold == -1e9:
        assert got == [0.5, 0.5, 0.0]  # no answer to either question, which one of them has not
    if threshold is None:
        assert got[2] == 1


@pytest.mark.parametrize("make", [classes, questions])
def test_devices_and_accumulation_change_nothing(tmp_path, make):
    results = []
    for devices, accumulate in ((1, 1), (4, 2)):
        plain = make(tmp_path)
        plain["accumulate"] = accumulate
        built = recipe.build(plain)
        program, state, measured = step(built, devices)
        [(evaluator, _)] = built.evaluators()
        results.append(measured | evaluator.build(program)(state))
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, rel=2e-5), name


def test_what_does_not_fit_is_refused(tmp_path):
    plain = classes(tmp_path)
    plain["model"] = plain["model"] | {"head": "mlm"}
    with pytest.raises(UserError, match=r'model.head: "mlm", but data.source.kind asks for "classification"'):
        recipe.build(plain)
    plain = classes(tmp_path)
    plain["data"]["num_classes"] = 5
    with pytest.raises(UserError, match=r"num_classes: the recipe states 5, the source has 2 classes \(0, 1\)"):
        recipe.build(plain).source("data")
    plain = questions(tmp_path)
    plain["objective"] = {"kind": "text_classification"}
    with pytest.raises(UserError, match='"text_classification" does not take questions'):
        recipe.build(plain)
