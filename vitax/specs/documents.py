"""``data`` of a recipe that pre-trains on masked documents."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from vitax.core.bounds import Positive
from vitax.core.errors import UserError
from vitax.data.documents import DOCUMENT_SOURCES
from vitax.data.masked_pipeline import MaskedPipeline
from vitax.specs.text import TextSpec


@dataclasses.dataclass(frozen=True)
class DocumentSpec(TextSpec):
    """``data`` of a recipe of masked text (and of an evaluator, whose missing fields come from it).

    Attributes:
      source: spec of a source of ``data.documents.DOCUMENT_SOURCES``.
      num_examples: chunks of sentences that fill ``length``, stated here so that plans never
        open data; checked at training.
      length: T, tokens of an example with its marks.
      seed: of the order and of what is drawn; if left out, the recipe's ``seed``, and 0 for an
        evaluator, whose masks are then the same in every run.
      max_predictions: M, masked tokens of an example at most.
      mask_rate: share of the tokens that are masked.
      short_rate: share of the examples that aim at a random shorter length.
      next_sentence: two segments, of which the second is random in half of the examples;
        False for one segment, which a model with the head ``mlm`` takes.
      whole_words: mask all pieces of a word or none.
    """

    TABLE: ClassVar[Mapping[str, Any]] = DOCUMENT_SOURCES
    PIPELINE: ClassVar[Any] = MaskedPipeline
    ROWS: ClassVar = "chunks"
    _DRAWN: ClassVar = ("max_predictions", "mask_rate", "short_rate", "next_sentence", "whole_words")
    SHARED: ClassVar[tuple[str, ...]] = (*TextSpec.SHARED, *_DRAWN)

    max_predictions: Positive = 20
    mask_rate: float = 0.15
    short_rate: float = 0.1
    next_sentence: bool = True
    whole_words: bool = False

    @property
    def given(self) -> dict[str, Any]:
        """Fields of models and objectives that the data decide."""
        head = "pretraining" if self.next_sentence else "mlm"
        return {**super().given, "head": head, "next_sentence": self.next_sentence}

    @property
    def of_pipeline(self) -> dict[str, Any]:
        """Fields of the pipeline that this kind of data has besides."""
        return {name: getattr(self, name) for name in self._DRAWN}

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a global batch."""
        b = self.batch_size
        row, chosen = (b, self.length), (b, self.max_predictions)
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            **dict.fromkeys(("tokens", "segment_ids", "token_types"), (row, np.int32)),
            **dict.fromkeys(("masked_positions", "masked_targets"), (chosen, np.int32)),
            "masked_weights": (chosen, np.float32),
            **({"next_sentence": ((b,), np.int32)} if self.next_sentence else {}),
            "mask": ((b,), np.bool_),
            "index": ((b,), np.int32),
        }
        return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}

    def check(self, where: str) -> None:
        """Checks what can be without opening anything.

        Raises:
          UserError: an unknown kind or field, or numbers that no example can have.
        """
        super().check(where)
        for name in ("mask_rate", "short_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{where}.{name}: expected from 0 to below 1, got {getattr(self, name)}.")
        if self.length < 5:
            raise UserError(f"{where}.length: {self.length}; [CLS] A [SEP] B [SEP] has at least 5 tokens.")
