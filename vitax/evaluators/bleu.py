"""BLEU of translations."""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import numpy as np

from vitax.core.bounds import Bounds, Positive
from vitax.core.types import TrainState
from vitax.data.text_pipeline import TextPipeline
from vitax.generate.beam import BEAMS, LENGTH_PENALTY
from vitax.generate.on_mesh import model_of
from vitax.generate.translator import Translator
from vitax.train.program import Program


@dataclasses.dataclass(frozen=True)
class BleuEvaluator:
    """Translates the sources of the evaluation set and scores them by sacrebleu.

    ``bleu`` is of the corpus, in percent: cased, detokenised, tokenised by sacrebleu's
    "13a"; ``ended`` the share of translations that the model ended itself. The average of
    the parameters is what is translated with, where the recipe keeps one.

    Attributes:
      name: prefix of the metrics, e.g. ``test``.
      pipeline: of the evaluation set.
      beams: candidates a sentence; 1 is greedy decoding.
      length_penalty: alpha of ``generate.beam.penalty``.
      sentences: so many of the first; None for all.

    Reference: Papineni et al. (2002); Post, arXiv:1804.08771 (sacrebleu).
    """

    name: str
    pipeline: TextPipeline
    beams: Positive = BEAMS
    length_penalty: Annotated[float, Bounds(0)] = LENGTH_PENALTY
    sentences: Positive | None = None

    def build(self, program: Program) -> Callable[[TrainState], dict[str, float]]:
        """Compiles nothing yet; the returned function does at its first call."""
        source = self.pipeline.source
        sentences, references = (side[: self.sentences] for side in source.pairs)
        translator = Translator(
            model_of(program, source.tokenizer.end_of_document),
            source.tokenizer,
            self.beams,
            self.length_penalty,
            self.pipeline.batch_size,
        )
        translator.encode(sentences)  # finds a sentence that is too long before the first step

        def run(state: TrainState) -> dict[str, float]:
            import sacrebleu

            params = state.params if program.ema is None else state.ema
            made = translator({"params": params}, sentences)
            bleu = sacrebleu.corpus_bleu([one.text for one in made], [references])
            return {"bleu": bleu.score, "ended": float(np.mean([one.why == "ended" for one in made]))}

        return run
