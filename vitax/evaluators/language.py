"""Exact loss, perplexity and bits per byte of a language model."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vitax.core import axes
from vitax.core.metrics import Mean
from vitax.core.types import Batch, TrainState
from vitax.data.text_pipeline import TextPipeline
from vitax.evaluators.classification import over_all
from vitax.train.program import Program


@dataclasses.dataclass(frozen=True)
class LanguageEvaluator:
    """Evaluates parameters, and their average (``ema/...``) where the recipe keeps one.

    ``loss`` is in nats a token, ``perplexity`` its exponential, ``bits_per_byte`` all bits
    (those of the marks between documents too) over all bytes of text: the one that
    tokenizers do not change. It is left out where tokens do not hold every byte
    (WordPiece). A token sees no further back than the start of its window.

    Attributes:
      name: prefix of the metrics, e.g. ``val``.
      pipeline: of the evaluation set; every token counts exactly once.
    """

    name: str
    pipeline: TextPipeline

    def build(self, program: Program) -> Callable[[TrainState], dict[str, float]]:
        """Compiles nothing yet; the returned function does at its first call."""
        evaluate = over_all(program, self.pipeline, make_measure(program, self.pipeline.source.tokenizer))

        def run(state: TrainState) -> dict[str, float]:
            values = evaluate(state)
            # Above 700 nats a float has no exponential.
            of = {k: math.exp(min(v, 700.0)) for k, v in values.items() if k.endswith("loss")}
            return values | {f"{k.removesuffix('loss')}perplexity": v for k, v in of.items()}

        return run


def make_measure(program: Program, tokenizer: Any) -> Callable[[Any, Any, Batch], dict[str, Mean]]:
    """(params, mutables, batch) -> sums of the metrics, jitted on the program's mesh."""
    token_bytes = jnp.asarray(tokenizer.token_bytes)

    @jax.jit
    def measure(params: Any, mutables: Any, batch: Batch) -> dict[str, Mean]:
        objective: Any = program.objective
        with axes.resolving(program.rules.resolver(program.mesh)):
            out = objective.loss({"params": params, **mutables}, batch, jax.random.key(0), train=False)
        made = {"loss": out.loss, **out.metrics}
        if tokenizer.lossless:
            in_bytes = Mean.of(token_bytes[batch["targets"]], objective.counted(batch))
            made["bits_per_byte"] = Mean(out.loss.total / math.log(2), in_bytes.total)
        return made

    return measure
