"""An encoder-decoder at work: texts in, texts out, in batches of like length."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vitax.core.errors import UserError
from vitax.generate.beam import BEAMS, LENGTH_PENALTY, BeamSearch
from vitax.generate.decoding import Model, Why, bucket

# Vaswani et al., arXiv:1706.03762, section 6.1.
EXTRA_TOKENS = 50


class Translated(NamedTuple):
    """One translation.

    Attributes:
      text: of it.
      tokens: of it.
      score: see ``generate.beam.Best``.
      why: it ends; ``limit`` is ``max_tokens``, or ``EXTRA_TOKENS`` more than the source.
    """

    text: str
    tokens: list[int]
    score: float
    why: Why


class Translator:
    """Translates texts by beam search; one compilation for each bucket of source lengths.

    Args:
      model: see ``generate.decoding.Model``, of an encoder-decoder.
      tokenizer: of both sides.
      beams: candidates a text.
      alpha: of ``generate.beam.penalty``.
      batch_size: texts a call of the device.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Any,
        beams: int = BEAMS,
        alpha: float = LENGTH_PENALTY,
        batch_size: int = 64,
    ):
        self.search = BeamSearch(model, beams)
        self.tokenizer, self.alpha, self.batch_size = tokenizer, alpha, batch_size

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of sources, each with its end mark.

        Raises:
          UserError: a text that is longer than the model's context.
        """
        model = self.search.model
        made = [[*self.tokenizer.encode(text.encode()).tolist(), model.end] for text in texts]
        for text, tokens in zip(texts, made):
            if len(tokens) > model.context:
                shown = text if len(text) < 60 else f"{text[:57]}..."
                raise UserError(
                    f'source: {len(tokens)} tokens in "{shown}", but the model has {model.context} positions '
                    "(model.context). Split it into sentences."
                )
        return made

    def __call__(self, variables: Any, texts: Sequence[str], max_tokens: int | None = None) -> list[Translated]:
        """Translations in the order of the texts.

        Args:
          variables: of the model.
          texts: sources.
          max_tokens: the longest translation; ``EXTRA_TOKENS`` more than the source if left out.
        """
        model, sources = self.search.model, self.encode(texts)
        found: list[Translated | None] = [None] * len(texts)
        by_length = sorted(range(len(texts)), key=lambda i: len(sources[i]))
        for first in range(0, len(by_length), self.batch_size):
            members = by_length[first : first + self.batch_size]
            rows = bucket(len(members), self.batch_size)
            width = bucket(max(len(sources[i]) for i in members), model.context)
            tokens = np.full((rows, width), model.end, np.int32)
            # Rows that fill the batch up are empty texts, which end at once.
            valid = np.zeros((rows, width), bool)
            limits = np.zeros(rows, np.int32)
            for row, i in enumerate(members):
                tokens[row, : len(sources[i])] = sources[i]
                valid[row, : len(sources[i])] = True
                limits[row] = max_tokens or len(sources[i]) + EXTRA_TOKENS
            # Trained with smoothed labels, a model gives the empty text more than it deserves.
            best = self.search(variables, [[model.end]] * rows, limits.tolist(), self.alpha, (tokens, valid), 1)
            for i, one in zip(members, best):
                text = self.tokenizer.decode(one.tokens).decode(errors="replace")
                found[i] = Translated(text, one.tokens, one.score, one.why)
        return [one for one in found if one is not None]
