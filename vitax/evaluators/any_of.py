"""Accuracy where an example may have several right labels, or none (ImageNet ReaL)."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vitax.core.errors import UserError
from vitax.core.metrics import Mean
from vitax.core.types import Batch, TrainState
from vitax.data.pipeline import Pipeline
from vitax.evaluators.classification import make_predict, over_all
from vitax.train.program import Program


@dataclasses.dataclass(frozen=True)
class AnyOfEvaluator:
    """A guess is right if it is any of the example's labels; examples without a label do not count.

    Attributes:
      name: prefix of the metrics, e.g. ``real``.
      pipeline: of the evaluation set, with ``soft_labels``: what is above 0 in ``target`` is right.

    Reference: Beyer et al., "Are we done with ImageNet?", arXiv:2006.07159, section 3 (ReaL accuracy).
    """

    name: str
    pipeline: Pipeline

    def __post_init__(self) -> None:
        if not self.pipeline.soft_labels:
            raise UserError(
                f"evaluators.{self.name}: any_of needs all labels of an example: set "
                f"--config.evaluators.{self.name}.data.soft_labels=true."
            )

    def build(self, program: Program) -> Callable[[TrainState], dict[str, float]]:
        """Compiles nothing yet; the returned function does at its first call."""
        predict = make_predict(program)

        return over_all(program, self.pipeline, lambda params, mutables, b: _measure(predict(params, mutables, b), b))


@jax.jit
def _measure(logits: jax.Array, batch: Batch) -> dict[str, Mean]:
    right = batch["target"] > 0
    guess = logits.argmax(-1)
    hit = (jax.lax.broadcasted_iota(jnp.int32, right.shape, 1) == guess[:, None]) & right
    return {"accuracy": Mean.of(hit.any(-1).astype(jnp.float32), batch["mask"] & right.any(-1))}
