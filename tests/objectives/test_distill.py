"""Distillation: the arithmetic, who gets a gradient, and where the teacher lives."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitax import recipe, teacher
from vitax.__main__ import main
from vitax.core.errors import UserError
from vitax.objectives import losses
from vitax.objectives.distill import Distillation, Teacher, soft_divergence


def test_soft_divergence_is_the_definition():
    rng = np.random.default_rng(0)
    student, taught = rng.normal(size=(2, 5, 7)).astype(np.float32) * 3

    def softmax(x):
        e = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    for t in (1.0, 4.0):
        p, q = softmax(taught / t), softmax(student / t)
        np.testing.assert_allclose(soft_divergence(student, taught, t), t * t * (p * np.log(p / q)).sum(-1), rtol=2e-5)
    np.testing.assert_allclose(soft_divergence(student, student, 2.0), 0, atol=1e-6)


def objective(form="soft", alpha=0.3, temperature=2.0):
    from vitax.models.vit import ViT

    def vit(width, depth):
        return ViT(width=width, depth=depth, mlp_dim=16, num_heads=2, patch_size=4, num_classes=3, zero_head=False)

    return Distillation(
        vit(8, 1), 3, teacher=Teacher(vit(16, 2), (0.2,), (0.7,)), alpha=alpha, temperature=temperature, form=form
    )


@pytest.mark.parametrize("form", ["soft", "hard"])
def test_loss_is_the_mix_and_the_teacher_gets_no_gradient(form):
    task = objective(form)
    batch = {
        "image": jax.random.randint(jax.random.key(3), (4, 8, 8, 3), 0, 256).astype(jnp.uint8),
        "label": jnp.array([0, 1, 2, 1]),
        "mask": jnp.array([True, True, True, False]),
        "index": jnp.arange(4),
    }
    variables = jax.tree.map(
        lambda x: x.value if hasattr(x, "value") else x,
        jax.jit(task.init)(jax.random.key(0), batch),
        is_leaf=lambda x: hasattr(x, "value"),
    )
    prepared = task.prepare(batch, jax.random.key(1), train=False)
    output = jax.jit(lambda v: task.loss(v, prepared, jax.random.key(2), train=True))(variables)
    student = jax.jit(lambda v: task.forward(v, prepared, jax.random.key(2)).logits)(variables)
    # The teacher sees the same pixels under its own scaling.
    scaled = (batch["image"] / 255.0 - 0.2) / 0.7
    taught = jax.jit(lambda v: task.teacher.model.apply(v, scaled).logits)(variables["teacher"])
    second = (
        soft_divergence(student, taught, 2.0)
        if form == "soft"
        else losses.softmax_cross_entropy(student, taught.argmax(-1))
    )
    each = 0.7 * losses.softmax_cross_entropy(student, batch["label"]) + 0.3 * second
    np.testing.assert_allclose(output.loss.total, each[:3].sum(), rtol=1e-5)
    assert output.loss.weight == 3
    grads = jax.jit(jax.grad(lambda v: task.loss(v, prepared, jax.random.key(2), train=True).loss.total))(variables)
    assert all(not g.any() for g in jax.tree.leaves(grads["teacher"]))
    assert any(g.any() for g in jax.tree.leaves(grads["params"]))
    assert output.mutables == {}


def test_bad_fields_are_named():
    for fields, words in (
        ({"alpha": 1.5}, "objective.alpha: expected from 0 to 1"),
        ({"temperature": 0.0}, "objective.temperature"),
    ):
        with pytest.raises(UserError, match=words):
            objective(**fields)
    with pytest.raises(UserError, match="objective.teacher: missing"):
        Distillation(None, 3)


def test_a_student_trains_from_a_checkpoint_and_goes_on_without_it(tmp_path, tiny):
    """The teacher comes from its workdir once; from then on it is in the student's checkpoints."""
    taught, folder = tmp_path / "teacher", tmp_path / "student"
    small = tiny(duration__steps=2, evaluators={}, objective={"kind": "classification", "mean": (0.4,)})
    write(tmp_path / "teacher.json", small)
    assert main(["train", "--config", str(tmp_path / "teacher.json"), "--workdir", str(taught)]) == 0
    objective = {"kind": "distillation", "teacher": {"checkpoint": str(taught)}, "form": "hard"}
    student = tiny(duration__steps=3, evaluators={}, objective=objective, model__width=16, model__depth=1)
    write(tmp_path / "student.json", student)
    built = recipe.build(student)
    assert built.config["objective"]["teacher"]["model"]["width"] == 32
    assert built.config["objective"]["teacher"]["mean"] == (0.4,)
    run = ["train", "--config", str(tmp_path / "student.json"), "--workdir", str(folder)]
    assert main(run) == 0
    held = json.loads((folder / "recipe.json").read_text())
    # What the student's state holds is what the teacher's run ended with.
    from vitax.checkpoint import store

    def digests(where, step, root):
        return {
            name.removeprefix(root): text
            for name, text in store.read_metadata(where / "checkpoints", step)[1].items()
            if name.startswith(root)
        }

    assert digests(folder, 3, "constants/teacher/params/") == digests(taught, 2, "ema/")
    # The workdir of the teacher may go: the recipe as resolved, and the checkpoint, have all.
    taught.rename(tmp_path / "elsewhere")
    write(tmp_path / "student.json", held)
    assert main([*run, "--config.schedule.kind=cosine"]) == 0


def write(path: pathlib.Path, config) -> None:
    path.write_text(json.dumps(config))


def test_teachers_are_checked_before_anything_runs(tmp_path, tiny):
    for stated, words in (
        ({"checkpont": "x"}, r'objective\.teacher\.checkpont: unknown field. Did you mean "checkpoint"'),
        ({}, r"objective.teacher.checkpoint: missing|objective.teacher: missing"),
        ({"checkpoint": str(tmp_path)}, "objective.teacher.checkpoint .*no checkpoint in"),
    ):
        with pytest.raises(UserError, match=words):
            recipe.build(tiny(objective={"kind": "distillation", "teacher": stated}))
    fields = {"kind": "vit", "width": 8, "depth": 1, "mlp_dim": 8, "num_heads": 1, "patch_size": 4, "num_classes": 9}
    with pytest.raises(UserError, match="it has 9 classes, the student 4"):
        teacher.build({"model": fields}, 4, "float32")
