"""Knowledge distillation: a student learns from a teacher's answers beside the labels."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitax.core.errors import UserError
from vitax.core.types import Batch, LossOutput, PyTree
from vitax.objectives import losses
from vitax.objectives.vision import Classification

# The teacher's variables among the constants of the train state.
TEACHER = "teacher"


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A model that is asked and does not learn.

    Attributes:
      model: as in ``Classification``, with as many classes as the student.
      mean: of its own pixels, see ``Classification``.
      std: likewise.
    """

    model: nn.Module
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)


@dataclasses.dataclass(frozen=True)
class Distillation(Classification):
    """``(1 - alpha) CE(label) + alpha D(teacher, student)`` on the images as the student sees them.

    D is ``T^2 KL(softmax(teacher / T) || softmax(student / T))`` (soft), or the cross-entropy
    with the teacher's likeliest class (hard). The teacher runs without dropout, on the very
    augmented and mixed images (Beyer et al. call it a consistent teacher). Its variables are
    constants of the train state: sharded like parameters, without gradient, and in every
    checkpoint, so that a restart needs no other file.

    Attributes:
      teacher: the model to learn from; a recipe names its checkpoint.
      alpha: weight of the teacher, from 0 to 1; 1 leaves the labels out.
      temperature: T, of soft distillation.
      form: ``soft`` or ``hard``.

    Reference: Hinton et al., arXiv:1503.02531, section 2 (soft); Touvron et al. (DeiT),
    arXiv:2012.12877, equation 3 (hard, without their distillation token); Beyer et al.,
    arXiv:2106.05237 (the same view for both, mixup, patience).
    """

    teacher: Teacher | None = None
    alpha: float = 0.5
    temperature: float = 1.0
    form: Literal["soft", "hard"] = "soft"

    constants = (TEACHER,)

    def __post_init__(self) -> None:
        if self.teacher is None:
            raise UserError(
                "objective.teacher: missing. Give objective.teacher.checkpoint: a workdir or a published weight file."
            )
        if not 0 <= self.alpha <= 1:
            raise UserError(f"objective.alpha: expected from 0 to 1, got {self.alpha}.")
        if not self.temperature > 0:
            raise UserError(f"objective.temperature: expected more than 0, got {self.temperature}.")
        if self.cross_entropy != "softmax":
            raise UserError('objective.cross_entropy: distillation needs "softmax".')

    def init(self, rng: jax.Array, batch: Batch) -> PyTree:
        """The student's variables, and the teacher's as the collection ``teacher``."""
        assert self.teacher is not None
        one = jnp.zeros((1, *batch["image"].shape[1:]), jnp.float32)
        return {**super().init(rng, batch), TEACHER: self.teacher.model.init(rng, one)}

    def teacher_logits(self, variables: PyTree, images: jax.Array) -> jax.Array:
        """float32 [B, classes] of images that are scaled for the student."""
        teacher = self.teacher
        assert teacher is not None
        pixels = images * jnp.asarray(self.std) + jnp.asarray(self.mean)
        scaled = (pixels - jnp.asarray(teacher.mean)) / jnp.asarray(teacher.std)
        output: Any = teacher.model.apply(jax.lax.stop_gradient(variables), scaled, train=False)
        return jax.lax.stop_gradient(output.logits).astype(jnp.float32)

    def per_example(self, logits: jax.Array, batch: Batch, *, train: bool) -> jax.Array:
        """float32 [B]; ``batch`` holds ``teacher``, the teacher's logits."""
        own = super().per_example(logits, batch, train=train)
        if self.form == "hard":
            taught = losses.softmax_cross_entropy(logits, batch[TEACHER].argmax(-1))
        else:
            taught = soft_divergence(logits, batch[TEACHER], self.temperature)
        return (1.0 - self.alpha) * own + self.alpha * taught

    def loss(self, variables: PyTree, batch: Batch, rng: jax.Array, *, train: bool) -> LossOutput:
        """Loss and accuracy of the student."""
        own = {name: tree for name, tree in variables.items() if name != TEACHER}
        answers = self.teacher_logits(variables[TEACHER], batch["image"])
        return super().loss(own, {**batch, TEACHER: answers}, rng, train=train)


def soft_divergence(student: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))``; 0 where both agree.

    Args:
      student: logits float [..., C].
      teacher: logits float [..., C].
      temperature: T. The factor keeps gradients alike whatever T is.

    Returns:
      float32 [...].

    Reference: arXiv:1503.02531, section 2.
    """
    p = jax.nn.log_softmax(teacher.astype(jnp.float32) / temperature)
    q = jax.nn.log_softmax(student.astype(jnp.float32) / temperature)
    return temperature**2 * (jnp.exp(p) * (p - q)).sum(-1)
