"""Batches of windows of a context with the span of an answer."""

from typing import Any

import numpy as np

from vitax.data.row_pipeline import RowPipeline
from vitax.data.squad import Squad
from vitax.data.step_indexed import Batch


class SpanPipeline(RowPipeline):
    """Turns windows into batches.

    Batches hold tokens, segment_ids (1, and 0 for padding) and token_types (1 for the
    context) int32 [B, T]; start and end int32 [B], places in the row; mask and index.

    Args:
      source: see ``vitax.data.squad``.
      vocab_size: token ids lie below it.
      **options: of ``StepIndexed``.
    """

    def __init__(self, source: Squad, *, vocab_size: int, **options: Any):
        super().__init__(source, vocab_size=vocab_size, ids=source.tokenizer.vocab_size, **options)
        self.length = source.length

    def check(self) -> None:
        """Finds every answer in its context, so that bad data are found before devices are started."""
        _ = self.source.spans

    def _rows(self, indices: np.ndarray, positions: np.ndarray) -> Batch:
        return self.source.gather(indices)
