"""Batches of token windows: batch ``n`` is a pure function of (seed, n)."""

from typing import Any

import numpy as np

from vitax.data.row_pipeline import RowPipeline
from vitax.data.step_indexed import Batch


class TextPipeline(RowPipeline):
    """Turns windows of text into batches.

    Batches hold what the source's ``gather`` gives, tokens, targets and segment_ids int32
    [B, T] (padding has segment 0) among it, mask and index.

    Args:
      source: see ``vitax.data.text`` and ``vitax.data.pairs``.
      vocab_size: token ids must lie below it.
      **options: of ``StepIndexed``.

    Raises:
      UserError: a token id that the vocabulary lacks.
    """

    SETTINGS = ("vocab_size",)

    def __init__(self, source: Any, *, vocab_size: int, **options: Any):
        super().__init__(source, vocab_size=vocab_size, ids=source.largest_id + 1, **options)
        self.vocab_size, self.length = vocab_size, source.length

    def _rows(self, indices: np.ndarray, positions: np.ndarray) -> Batch:
        return self.source.gather(indices)
