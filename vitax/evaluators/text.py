"""Exact accuracy and F1 of classes of text on any tail."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vitax.core.metrics import Mean
from vitax.core.types import Batch, TrainState
from vitax.data.labelled_text_pipeline import LabelledTextPipeline
from vitax.evaluators.classification import make_predict, over_all
from vitax.train.program import Program


@dataclasses.dataclass(frozen=True)
class TextClassificationEvaluator:
    """Evaluates parameters, and their average (``ema/...``) where the recipe keeps one.

    ``loss`` and ``accuracy``; of two classes also ``f1`` of class 1, ``2 TP / (2 TP + FP +
    FN)`` over the whole set (0 where none is predicted and none is there), which MRPC and
    QQP are reported by. For regression ``loss`` alone, the mean squared error.

    Attributes:
      name: prefix of the metrics, e.g. ``val``.
      pipeline: of the evaluation set; every example counts exactly once.
    """

    name: str
    pipeline: LabelledTextPipeline

    def build(self, program: Program) -> Callable[[TrainState], dict[str, float]]:
        """Compiles nothing yet; the returned function does at its first call."""
        predict, measure = make_predict(program), make_measure(program)
        evaluate = over_all(
            program, self.pipeline, lambda params, mutables, b: measure(predict(params, mutables, b), b)
        )

        def run(state: TrainState) -> dict[str, float]:
            return {k: 0.0 if k.endswith("f1") and math.isnan(v) else v for k, v in evaluate(state).items()}

        return run


def make_measure(program: Program) -> Callable[[jax.Array, Batch], dict[str, Mean]]:
    """(logits, batch) -> sums of loss, accuracy and F1."""

    @jax.jit
    def measure(logits: jax.Array, batch: Batch) -> dict[str, Mean]:
        objective: Any = program.objective
        label, mask = batch["label"], batch["mask"]
        values = {"loss": Mean.of(objective.loss_per_example(logits, label), mask)}
        if objective.num_classes == 1:
            return values
        guess = logits.argmax(-1)
        values["accuracy"] = Mean.of(guess == label, mask)
        if objective.num_classes == 2:
            # 2 TP over (predicted + there): counts, which add up over batches.
            both, either = (guess == 1) & (label == 1), (guess == 1).astype(jnp.float32) + (label == 1)
            values["f1"] = Mean(2 * Mean.of(both, mask).total, Mean.of(either, mask).total)
        return values

    return measure
