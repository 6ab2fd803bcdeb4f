"""``data`` of a recipe whose examples are rows of packed prompts and completions."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from vitax.data.prompts import PROMPT_SOURCES
from vitax.specs.text import TextSpec


@dataclasses.dataclass(frozen=True)
class PromptSpec(TextSpec):
    """As ``TextSpec``, for prompts and completions, of which the completions are learned.

    Attributes:
      source: spec of a source of ``data.prompts.PROMPT_SOURCES``.
      num_examples: rows, into which the pairs are packed; stated here so that plans never
        open data; checked at training.
      length: T, tokens of a row, and the longest prompt with its completion and mark.
    """

    TABLE: ClassVar[Mapping[str, Any]] = PROMPT_SOURCES
    ROWS: ClassVar = "rows"

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a global batch."""
        mask = jax.ShapeDtypeStruct((self.batch_size, self.length), np.bool_)
        return {"loss_mask": mask, **super().batch_spec}
