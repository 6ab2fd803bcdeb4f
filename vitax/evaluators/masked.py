"""Exact losses and accuracies of a masked language model on any tail."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from vitax.core import axes
from vitax.core.metrics import Mean
from vitax.core.types import Batch, TrainState
from vitax.data.masked_pipeline import MaskedPipeline
from vitax.evaluators.classification import over_all
from vitax.train.program import Program


@dataclasses.dataclass(frozen=True)
class MaskedLanguageEvaluator:
    """Evaluates parameters, and their average (``ema/...``) where the recipe keeps one.

    ``masked_loss`` (nats) and ``accuracy`` are over all masked tokens of the set,
    ``next_sentence_loss`` and ``next_sentence_accuracy`` over all examples; ``loss`` is the
    sum of the two losses. Masks and pairs are those of one fixed draw.

    Attributes:
      name: prefix of the metrics, e.g. ``val``.
      pipeline: of the evaluation set; every example counts exactly once.
    """

    name: str
    pipeline: MaskedPipeline

    def build(self, program: Program) -> Callable[[TrainState], dict[str, float]]:
        """Compiles nothing yet; the returned function does at its first call."""
        evaluate = over_all(program, self.pipeline, make_measure(program))

        def run(state: TrainState) -> dict[str, float]:
            values = evaluate(state)
            for masked in [k for k in values if k.endswith("masked_loss")]:
                prefix = masked.removesuffix("masked_loss")
                values[f"{prefix}loss"] = values[masked] + values.get(f"{prefix}next_sentence_loss", 0.0)
            return values

        return run


def make_measure(program: Program) -> Callable[[Any, Any, Batch], dict[str, Mean]]:
    """(params, mutables, batch) -> the objective's metrics as sums, jitted on the program's mesh."""

    @jax.jit
    def measure(params: Any, mutables: Any, batch: Batch) -> dict[str, Mean]:
        objective = program.objective
        rng = jax.random.key(0)
        with axes.resolving(program.rules.resolver(program.mesh)):
            prepared = objective.prepare(batch, rng, train=False)
            return objective.loss({"params": params, **mutables}, prepared, rng, train=False).metrics

    return measure
