"""``data`` of a recipe that classifies texts, or pairs of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from vitax.core.bounds import Positive
from vitax.core.errors import UserError
from vitax.data.labelled_text import LABELLED_TEXT_SOURCES
from vitax.data.labelled_text_pipeline import LabelledTextPipeline
from vitax.specs.text import TextSpec


@dataclasses.dataclass(frozen=True)
class LabelledTextSpec(TextSpec):
    """``data`` of a recipe of labelled texts (and of an evaluator, whose missing fields come from it).

    Attributes:
      source: spec of a source of ``data.labelled_text.LABELLED_TEXT_SOURCES``.
      num_examples: texts or pairs, stated here so that plans never open data; checked at
        training.
      length: T, tokens of an example with its marks; longer ones are cut.
      num_classes: of the labels; 1 for regression.
    """

    TABLE: ClassVar[Mapping[str, Any]] = LABELLED_TEXT_SOURCES
    PIPELINE: ClassVar[Any] = LabelledTextPipeline
    ROWS: ClassVar = "examples"
    SHARED: ClassVar[tuple[str, ...]] = (*TextSpec.SHARED, "num_classes")

    num_classes: Positive = 2

    @property
    def given(self) -> dict[str, Any]:
        """Fields of models and objectives that the data decide."""
        return {**super().given, "head": "classification", "num_classes": self.num_classes}

    @property
    def of_source(self) -> dict[str, Any]:
        """Fields of the source that this kind of data has besides."""
        return {"num_classes": self.num_classes}

    @property
    def of_pipeline(self) -> dict[str, Any]:
        """Fields of the pipeline that this kind of data has besides."""
        return {"length": self.length, "tokenizer": self.build_tokenizer(), "num_classes": self.num_classes}

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a global batch."""
        b = self.batch_size
        row = jax.ShapeDtypeStruct((b, self.length), np.int32)
        return {
            **dict.fromkeys(("tokens", "segment_ids", "token_types"), row),
            "label": jax.ShapeDtypeStruct((b,), np.float32 if self.num_classes == 1 else np.int32),
            "mask": jax.ShapeDtypeStruct((b,), np.bool_),
            "index": jax.ShapeDtypeStruct((b,), np.int32),
        }

    def check(self, where: str) -> None:
        """Checks what can be without opening anything.

        Raises:
          UserError: an unknown kind or field, or a length without room for text.
        """
        super().check(where)
        if self.length < 3:
            raise UserError(f"{where}.length: {self.length}; [CLS] A [SEP] has at least 3 tokens, a pair 5.")

    def build_source(self, where: str = "data") -> Any:
        """The source, with what the recipe states about it checked: opens it."""
        source = super().build_source(where)
        names = source.class_names
        if self.num_classes > 1 and names and len(names) != self.num_classes:
            raise UserError(
                f"{where}.num_classes: the recipe states {self.num_classes}, the source has {len(names)} classes "
                f"({', '.join(names[:5])}). Set --config.data.num_classes={len(names)}."
            )
        return source
