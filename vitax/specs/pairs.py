"""``data`` of a recipe whose examples are rows of packed pairs of texts."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from vitax.data.text_sources import PAIR_SOURCES
from vitax.specs.text import TextSpec


@dataclasses.dataclass(frozen=True)
class PairSpec(TextSpec):
    """As ``TextSpec``, for pairs: a translation and what it translates.

    Attributes:
      source: spec of a source of ``data.text_sources.PAIR_SOURCES``.
      num_examples: rows, into which the pairs are packed; stated here so that plans never
        open data; checked at training.
      length: S and T, tokens of a row on either side, and the longest sentence with its mark.
    """

    TABLE: ClassVar[Mapping[str, Any]] = PAIR_SOURCES
    ROWS: ClassVar = "rows"

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a global batch."""
        row = jax.ShapeDtypeStruct((self.batch_size, self.length), np.int32)
        return {"source": row, "source_segments": row, **super().batch_spec}
