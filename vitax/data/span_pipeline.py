"""Batches of windows of a context with the span of an answer."""

import json
from concurrent.futures import Executor
from typing import Any

import numpy as np

from vitax.data.squad import Squad
from vitax.data.step_indexed import SMALL_BYTES, Batch, StepIndexed


class SpanPipeline(StepIndexed):
    """Turns windows into batches.

    Batches hold tokens, segment_ids (1, and 0 for padding) and token_types (1 for the
    context) int32 [B, T]; start and end int32 [B], places in the row; mask and index.

    Args:
      source: see ``vitax.data.squad``.
      vocab_size: token ids lie below it.
      **options: of ``StepIndexed``.
    """

    def __init__(self, source: Squad, *, vocab_size: int, **options: Any):
        super().__init__(source, **options)
        self.vocab_size = vocab_size

    def check(self) -> None:
        """Finds every answer in its context, so that bad data are found before devices are started."""
        _ = self.source.spans

    def fingerprint(self) -> dict[str, Any]:
        """What decides the batches, as JSON-ready data: not hosts, threads or paths."""
        names = ("batch_size", "seed", "shuffle")
        plain = {"source": self.source.fingerprint(), **{name: getattr(self, name) for name in names}}
        return json.loads(json.dumps(plain))

    def _group(self, examples: int) -> int:
        return max(1, min(8, SMALL_BYTES // (12 * examples * self.source.length)))

    def _train_batch(self, n: int, pool: Executor | None) -> Batch:
        indices = self._order(self._train_positions(n))
        mask = np.ones(len(indices), bool)
        return {**self.source.gather(indices), "mask": mask, "index": indices.astype(np.int32)}

    def _eval_batch(self, n: int, batch_size: int, pool: Executor | None) -> Batch:
        positions = self._positions(n, batch_size)
        mask = positions < self.num_examples
        indices = np.where(mask, positions, 0)
        made = {name: x * mask.reshape(-1, *[1] * (x.ndim - 1)) for name, x in self.source.gather(indices).items()}
        return {**made, "mask": mask, "index": indices.astype(np.int32)}
