"""Batches of rows of tokens, each made in one call: what the pipelines of text share."""

import abc
import json
from concurrent.futures import Executor
from typing import Any, ClassVar

import numpy as np

from vitax.core.errors import UserError
from vitax.data.step_indexed import SMALL_BYTES, Batch, StepIndexed


class RowPipeline(StepIndexed):
    """A pipeline whose subclasses give ``_rows`` and the attribute ``length``, T.

    Args:
      source: see ``StepIndexed``.
      vocab_size: of the model.
      ids: token ids lie below it.
      **options: of ``StepIndexed``.

    Raises:
      UserError: token ids that the vocabulary lacks.

    Attributes:
      SETTINGS: attributes that decide the batches, beside those of ``StepIndexed``.
      TOKEN_BYTES: of a batch, for each of its tokens, about.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ()
    TOKEN_BYTES: ClassVar = 12

    length: int

    def __init__(self, source: Any, *, vocab_size: int, ids: int, **options: Any):
        super().__init__(source, **options)
        if ids > vocab_size:
            # On the host: on the device such an id would silently be another.
            raise UserError(
                f"data.vocab_size: {vocab_size}, but there are token ids up to {ids - 1}. Set it above that."
            )

    @abc.abstractmethod
    def _rows(self, indices: np.ndarray, positions: np.ndarray) -> Batch:
        """Examples int64 [B], drawn with their positions int64 [B] -> arrays [B, ...]."""

    def check(self) -> None:
        """Makes one example, so that bad data are found before devices are started."""
        self._rows(np.zeros(1, np.int64), np.zeros(1, np.int64))

    def fingerprint(self) -> dict[str, Any]:
        """What decides the batches, as JSON-ready data: not hosts, threads or paths."""
        names = ("batch_size", "seed", "shuffle", *self.SETTINGS)
        plain = {"source": self.source.fingerprint(), **{name: getattr(self, name) for name in names}}
        return json.loads(json.dumps(plain))

    def _group(self, examples: int) -> int:
        return max(1, min(8, SMALL_BYTES // (self.TOKEN_BYTES * examples * self.length)))

    def _train_batch(self, n: int, pool: Executor | None) -> Batch:
        positions = self._train_positions(n)
        indices = self._order(positions)
        made = self._rows(indices, positions)
        return {**made, "mask": np.ones(len(indices), bool), "index": indices.astype(np.int32)}

    def _eval_batch(self, n: int, batch_size: int, pool: Executor | None) -> Batch:
        positions = self._positions(n, batch_size)
        mask = positions < self.num_examples
        indices = np.where(mask, positions, 0)
        # Positions of an evaluation are its examples: one fixed draw.
        made = self._rows(indices, indices)
        made = {name: x * mask.reshape(-1, *[1] * (x.ndim - 1)) for name, x in made.items()}
        return {**made, "mask": mask, "index": indices.astype(np.int32)}
