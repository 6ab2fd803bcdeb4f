"""Batches of one or two texts with a label, as BERT reads them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitax.core.errors import UserError
from vitax.data.row_pipeline import RowPipeline
from vitax.data.step_indexed import Batch


class LabelledTextPipeline(RowPipeline):
    """Turns texts into ``[CLS] text [SEP]`` or ``[CLS] text [SEP] pair [SEP]``.

    What is too long is cut off the end of the longer text. Batches hold tokens,
    segment_ids (1, and 0 for padding) and token_types (1 for the pair) int32 [B, T]; label
    int32 [B], or float32 [B] for regression; mask and index.

    Args:
      source: see ``vitax.data.labelled_text``.
      vocab_size: token ids lie below it.
      length: T.
      tokenizer: a ``wordpiece`` tokenizer.
      num_classes: labels lie below it; 1 for regression, whose labels are finite.
      **options: of ``StepIndexed``.

    Raises:
      UserError: a token id that the vocabulary lacks.
    """

    SETTINGS = ("length",)
    TOKEN_BYTES = 64

    def __init__(self, source: Any, *, vocab_size: int, length: int, tokenizer: Any, num_classes: int, **options: Any):
        super().__init__(source, vocab_size=vocab_size, ids=tokenizer.vocab_size, **options)
        self.length, self.tokenizer, self.num_classes = length, tokenizer, num_classes

    def check(self) -> None:
        """Looks at all labels and makes one example, before devices are started.

        Raises:
          UserError: a label that is no class (as in the test splits of GLUE), or a length
            without room for text.
        """
        labels = self.source.labels
        regression = self.num_classes == 1
        wrong = ~np.isfinite(labels) if regression else (labels < 0) | (labels >= self.num_classes)
        if wrong.any():
            index = int(np.flatnonzero(wrong)[0])
            expected = "a finite number" if regression else f"0 to {self.num_classes - 1} (data.num_classes)"
            raise UserError(f"{self.source.describe(index)} has label {labels[index]}; expected {expected}.")
        least = 1 + 2 * len(self.source.texts(0))
        if self.length < least:
            raise UserError(f"data.length: {self.length}; an example with its marks has at least {least} tokens.")
        super().check()

    def fingerprint(self) -> dict[str, Any]:
        """As of ``RowPipeline``, and the tokenizer, which the source does not know."""
        return super().fingerprint() | {"tokenizer": self.tokenizer.fingerprint()}

    def _rows(self, indices: np.ndarray, positions: np.ndarray) -> Batch:
        rows = [encoded(self.tokenizer, self.source.texts(int(i)), self.length) for i in indices]
        return {**padded(self.tokenizer, rows, self.length), "label": self.source.labels[indices]}


def encoded(tokenizer: Any, texts: tuple[bytes, ...], length: int) -> tuple[np.ndarray, ...]:
    """Token ids of each text, cut so that all fit with their marks.

    Args:
      tokenizer: a ``wordpiece`` tokenizer.
      texts: one or two.
      length: T.
    """
    return fitted([tokenizer.encode(text) for text in texts], length)


def fitted(ids: Sequence[np.ndarray], length: int) -> tuple[np.ndarray, ...]:
    """Token ids of one or two texts, cut so that all fit into ``length`` with their marks."""
    room = length - 1 - len(ids)
    if len(ids) == 1:
        return (ids[0][:room],)
    # The longer one gives way down to the other, and then both in turn.
    first = min(len(ids[0]), max(room - len(ids[1]), (room + 1) // 2))
    return ids[0][:first], ids[1][: room - first]


def padded(tokenizer: Any, rows: Sequence[tuple[np.ndarray, ...]], length: int) -> dict[str, np.ndarray]:
    """``[CLS] a [SEP] b [SEP]`` and padding: tokens, segment_ids and token_types, int32 [B, T].

    Args:
      tokenizer: a ``wordpiece`` tokenizer.
      rows: token ids of one or two texts each, that fit.
      length: T.
    """
    tokens = np.full((len(rows), length), tokenizer.pad_id, np.int32)
    segment_ids, token_types = np.zeros_like(tokens), np.zeros_like(tokens)
    for row, texts in enumerate(rows):
        tokens[row, 0], at = tokenizer.cls_id, 1
        for kind, ids in enumerate(texts):
            stop = at + len(ids)
            tokens[row, at:stop], tokens[row, stop] = ids, tokenizer.sep_id
            token_types[row, at : stop + 1] = kind
            at = stop + 1
        segment_ids[row, :at] = 1
    return {"tokens": tokens, "segment_ids": segment_ids, "token_types": token_types}
