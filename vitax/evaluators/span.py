"""Exact match and F1 of answers to questions, as SQuAD defines them."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from vitax.core import axes
from vitax.core.bounds import Positive
from vitax.core.types import TrainState
from vitax.data import answers
from vitax.data.answers import Scores
from vitax.data.span_pipeline import SpanPipeline
from vitax.data.squad import Squad
from vitax.evaluators.classification import and_of_average, global_batches
from vitax.train.program import Program


@dataclasses.dataclass(frozen=True)
class SpanEvaluator:
    """Evaluates parameters, and their average (``ema/...``) where the recipe keeps one.

    ``exact_match`` and ``f1``, from 0 to 1, are means over questions; ``answered`` is the
    share of them that get an answer.

    Attributes:
      name: prefix of the metrics, e.g. ``val``.
      pipeline: of the evaluation set; every question counts exactly once.
      n_best: starts and ends that each window may propose.
      longest: tokens of an answer at most.
      null_threshold: no answer where the score of none is above that of the best answer by
        more than this; None always answers, as SQuAD 1.1 asks. 0 is the authors' default
        for 2.0; their results choose it on the development set.
    """

    name: str
    pipeline: SpanPipeline
    n_best: Positive = 20
    longest: Positive = 30
    null_threshold: float | None = None

    def build(self, program: Program) -> Callable[[TrainState], dict[str, float]]:
        """Compiles nothing yet; the returned function does at its first call."""
        forward = span_logits(program)

        def of(params: Any, mutables: Any) -> dict[str, float]:
            source: Squad = self.pipeline.source
            logits: list[Any] = [None] * len(source)
            for batch in global_batches(program, self.pipeline):
                spans, index, mask = (np.asarray(x) for x in forward(params, mutables, batch))
                for i in np.flatnonzero(mask):
                    logits[index[i]] = spans[i]
            judged = []
            for number, predicted in predictions(self, source, logits):
                wanted = answers.accepted(source.questions[number].answers)
                judged.append((answers.exact_match(predicted, wanted), answers.f1(predicted, wanted), predicted != ""))
            return dict(zip(("exact_match", "f1", "answered"), np.mean(judged, 0).tolist()))

        return and_of_average(program, of)


def span_logits(program: Program) -> Callable[..., Any]:
    """(params, mutables, batch) -> logits float32 [B, T, 2], index and mask [B], whole on every host."""
    whole = NamedSharding(program.mesh, PartitionSpec())

    def forward(params: Any, mutables: Any, batch: Any) -> Any:
        objective: Any = program.objective
        with axes.resolving(program.rules.resolver(program.mesh)):
            output = objective.forward({"params": params, **mutables}, batch)
            return objective.span_logits(output, batch), batch["index"], batch["mask"]

    return jax.jit(forward, out_shardings=whole)


def predictions(evaluator: SpanEvaluator, source: Squad, logits: list[np.ndarray]) -> Iterator[tuple[int, str]]:
    """(number of the question, text of its answer, empty for none) of all questions."""
    of_question: dict[int, list[Scores]] = {}
    for window, spans in zip(source.windows, logits):
        scores = Scores(spans[:, 0], spans[:, 1], window.first, window.size, window.offset)
        of_question.setdefault(window.question, []).append(scores)
    for number, windows in of_question.items():
        context = source.context(source.questions[number])
        options = {"n_best": evaluator.n_best, "longest": evaluator.longest}
        best = answers.best_answer(context, source.letters(number), windows, **options)
        threshold = evaluator.null_threshold
        none = threshold is not None and best.null_score - best.score > threshold
        yield number, "" if none else best.text
