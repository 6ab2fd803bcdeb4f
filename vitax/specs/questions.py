"""``data`` of a recipe that answers questions with a span of a context."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from vitax.data.span_pipeline import SpanPipeline
from vitax.data.squad import QUESTION_SOURCES
from vitax.specs.text import TextSpec


@dataclasses.dataclass(frozen=True)
class QuestionSpec(TextSpec):
    """``data`` of a recipe of questions (and of an evaluator, whose missing fields come from it).

    Attributes:
      source: spec of a source of ``data.squad.QUESTION_SOURCES``.
      num_examples: windows, which depend on the tokenizer and the length; stated here so
        that plans never open data; checked at training.
      length: T, tokens of a question and a window with their marks.
    """

    TABLE: ClassVar[Mapping[str, Any]] = QUESTION_SOURCES
    PIPELINE: ClassVar[Any] = SpanPipeline

    @property
    def given(self) -> dict[str, Any]:
        """Fields of models and objectives that the data decide."""
        return {**super().given, "head": "span"}

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a global batch."""
        b = self.batch_size
        row, one = (jax.ShapeDtypeStruct(shape, np.int32) for shape in ((b, self.length), (b,)))
        return {
            **dict.fromkeys(("tokens", "segment_ids", "token_types"), row),
            **dict.fromkeys(("start", "end"), one),
            "mask": jax.ShapeDtypeStruct((b,), np.bool_),
            "index": one,
        }
