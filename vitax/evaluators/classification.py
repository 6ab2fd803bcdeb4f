"""Exact top-1, top-5 and loss on any tail and any number of devices."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitax.core import axes, metrics
from vitax.core.metrics import Mean
from vitax.core.types import Batch, ModelOutput, TrainState
from vitax.data.pipeline import Pipeline
from vitax.data.step_indexed import StepIndexed
from vitax.objectives import losses
from vitax.train.program import Program


@dataclasses.dataclass(frozen=True)
class ClassificationEvaluator:
    """Evaluates parameters, and their average (``ema/...``) where the recipe keeps one.

    Attributes:
      name: prefix of the metrics, e.g. ``val``.
      pipeline: of the evaluation set; every example counts exactly once.
      topk: besides ``accuracy`` (top-1), this many guesses (``top5_accuracy``).
    """

    name: str
    pipeline: Pipeline
    topk: int = 5

    def build(self, program: Program) -> Callable[[TrainState], dict[str, float]]:
        """Compiles nothing yet; the returned function does at its first call."""
        predict = make_predict(program)
        measure = make_measure(program, min(self.topk, program.objective.num_classes))  # type: ignore[attr-defined]

        return over_all(program, self.pipeline, lambda params, mutables, b: measure(predict(params, mutables, b), b))


def over_all(
    program: Program, pipeline: StepIndexed, measure: Callable[[Any, Any, Batch], dict[str, Mean]]
) -> Callable[[TrainState], dict[str, float]]:
    """An evaluation: means over every example, for the parameters and for their average where there is one.

    Args:
      program: on whose mesh.
      pipeline: of the evaluation set.
      measure: (params, mutables, batch) -> name -> Mean.
    """

    def of(params: Any, mutables: Any) -> dict[str, float]:
        total: dict[str, Mean] | None = None
        for batch in global_batches(program, pipeline):
            means = measure(params, mutables, batch)
            total = means if total is None else metrics.add(total, means)
        assert total is not None
        return metrics.compute(total)

    return and_of_average(program, of)


def and_of_average(
    program: Program, of: Callable[[Any, Any], dict[str, float]]
) -> Callable[[TrainState], dict[str, float]]:
    """``of`` (params, mutables) of a state, and as ``ema/...`` of its average where there is one."""

    def run(state: TrainState) -> dict[str, float]:
        values = of(state.params, state.mutables)
        if program.ema is not None:
            values |= {f"ema/{k}": v for k, v in of(state.ema, state.ema_mutables).items()}
        return values

    return run


def global_batches(program: Program, pipeline: StepIndexed) -> Iterator[Batch]:
    """All evaluation batches as global arrays, the tail padded with ``mask`` False."""
    for local in pipeline.eval_batches(_fitting(program, pipeline.batch_size)):
        yield program.put(local)


def _fitting(program: Program, batch_size: int) -> int:
    # Padding is exact, so any batch size will do: the next that the devices divide.
    ways = program.rules.batch_ways(program.mesh)
    return -(-batch_size // ways) * ways


def make_forward(program: Program, pick: Callable[[ModelOutput], Any], **options: Any) -> Callable[..., Any]:
    """(params, mutables, raw batch) -> ``pick`` of the model's output, jitted on the program's mesh.

    Args:
      program: whose objective and mesh.
      pick: of the output; what it leaves is not computed.
      **options: of the model's call, such as ``return_attention``.
    """

    @jax.jit
    def forward(params: Any, mutables: Any, batch: Batch) -> Any:
        objective: Any = program.objective
        with axes.resolving(program.rules.resolver(program.mesh)):
            prepared = objective.prepare(batch, jax.random.key(0), train=False)
            return pick(objective.forward({"params": params, **mutables}, prepared, **options))

    return forward


def make_predict(program: Program) -> Callable[[Any, Any, Batch], jax.Array]:
    """(params, mutables, raw batch) -> float32 logits [B, classes], jitted on the program's mesh."""
    return make_forward(program, lambda output: output.logits)


def make_measure(program: Program, topk: int) -> Callable[[jax.Array, Batch], dict[str, Mean]]:
    """(logits, batch) -> sums of loss, accuracy and top-k accuracy."""

    @jax.jit
    def measure(logits: jax.Array, batch: Batch) -> dict[str, Mean]:
        objective: Any = program.objective
        label, mask = batch["label"], batch["mask"]
        values = {
            "loss": Mean.of(objective.loss_per_example(logits, label, train=False), mask),
            "accuracy": Mean.of(losses.topk_correct(logits, label, 1), mask),
        }
        if topk > 1:
            values[f"top{topk}_accuracy"] = Mean.of(losses.topk_correct(logits, label, topk), mask)
        return values

    return measure


def predictions(program: Program, state: TrainState, pipeline: Pipeline) -> Iterator[tuple[np.ndarray, Any]]:
    """(probabilities [n, classes], host batch without padding) of an evaluation set.

    One process only: rows of other processes are not gathered.
    """
    predict = make_predict(program)
    averaged = program.ema is not None
    variables = (state.ema, state.ema_mutables) if averaged else (state.params, state.mutables)
    for local in pipeline.eval_batches(_fitting(program, pipeline.batch_size)):
        logits = predict(*variables, program.put(local))
        keep = np.asarray(local["mask"])
        yield (
            np.asarray(jax.nn.softmax(logits.astype(jnp.float32)))[keep],
            {k: np.asarray(v)[keep] for k, v in local.items()},
        )
