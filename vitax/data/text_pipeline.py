"""Batches of token windows: batch ``n`` is a pure function of (seed, n)."""

import json
from concurrent.futures import Executor
from typing import Any

import numpy as np

from vitax.core.errors import UserError
from vitax.data.step_indexed import SMALL_BYTES, Batch, StepIndexed


class TextPipeline(StepIndexed):
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

    def __init__(self, source: Any, *, vocab_size: int, **options: Any):
        super().__init__(source, **options)
        largest = source.largest_id
        if largest >= vocab_size:
            # On the host: on the device such an id would silently be another.
            raise UserError(f"data.vocab_size: {vocab_size}, but the text has token id {largest}. Set it above that.")
        self.vocab_size = vocab_size

    def check(self) -> None:
        """Makes one example, so that bad data are found before devices are started."""
        self.source.gather(np.zeros(1, np.int64))

    def fingerprint(self) -> dict[str, Any]:
        """What decides the batches, as JSON-ready data: not hosts, threads or paths."""
        plain = {
            "source": self.source.fingerprint(),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "vocab_size": self.vocab_size,
        }
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
        index = np.where(mask, positions, 0).astype(np.int32)
        windows = self.source.gather(index)
        return {**{name: x * mask[:, None] for name, x in windows.items()}, "mask": mask, "index": index}
