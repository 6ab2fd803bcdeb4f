"""Batches for pre-training BERT: masked tokens and next sentences."""

from typing import Any

import numpy as np

from vitax.data import masking, sentence_pairs
from vitax.data.documents import Documents
from vitax.data.row_pipeline import RowPipeline
from vitax.data.step_indexed import Batch


class MaskedPipeline(RowPipeline):
    """Turns chunks of documents into ``[CLS] A [SEP] B [SEP]`` with hidden tokens.

    Split, second segment, length and masks are keyed by the global position, so they are
    new in each epoch and the same on any number of hosts and threads. An evaluation has
    one draw for each example.

    Batches hold tokens, segment_ids (1, and 0 for padding) and token_types (1 for B)
    int32 [B, T]; masked_positions and masked_targets int32 [B, M], masked_weights float32
    [B, M] (0 = none); next_sentence int32 [B] (0 = B follows A, 1 = random) where it is
    predicted; mask and index.

    Args:
      source: see ``vitax.data.documents``.
      vocab_size: token ids must lie below it.
      max_predictions: M.
      mask_rate: share of the tokens that are predicted.
      short_rate: share of the examples that aim at a random shorter length.
      next_sentence: two segments; one, and no ``next_sentence``, where False.
      whole_words: mask all pieces of a word or none.
      **options: of ``StepIndexed``.

    Raises:
      UserError: a token id that the vocabulary lacks, or one document where two are needed.
    """

    SETTINGS = ("max_predictions", "mask_rate", "short_rate", "next_sentence", "whole_words")
    TOKEN_BYTES = 64

    def __init__(
        self,
        source: Documents,
        *,
        vocab_size: int,
        max_predictions: int,
        mask_rate: float = 0.15,
        short_rate: float = 0.1,
        next_sentence: bool = True,
        whole_words: bool = False,
        **options: Any,
    ):
        super().__init__(source, vocab_size=vocab_size, ids=source.tokenizer.vocab_size, **options)
        if next_sentence:
            sentence_pairs.check(source.corpus)
        self.max_predictions, self.mask_rate, self.short_rate = max_predictions, mask_rate, short_rate
        self.next_sentence, self.whole_words, self.length = next_sentence, whole_words, source.length

    def _rows(self, indices: np.ndarray, positions: np.ndarray) -> Batch:
        corpus, tokenizer, length = self.source.corpus, self.source.tokenizer, self.length
        draw = sentence_pairs.pairs if self.next_sentence else sentence_pairs.singles
        marks = 3 if self.next_sentence else 2
        found = draw(corpus, indices, positions, self.seed, length - marks, self.short_rate)
        tokens, types, plain = laid_out(corpus.stream, found, length, tokenizer.cls_id, tokenizer.sep_id)
        lengths = plain.sum(1) + marks
        real = np.arange(length) < lengths[:, None]
        tokens = np.where(real, tokens, tokenizer.pad_id).astype(np.int32)
        starts = plain
        if self.whole_words:
            # What a segment begins with is a word, though the cut may have taken its first pieces.
            starts = plain & (tokenizer.word_starts[tokens] | ~np.pad(plain, ((0, 0), (1, 0)))[:, :-1])
        hidden = masking.mask(
            tokens,
            plain,
            starts,
            lengths,
            positions,
            seed=self.seed,
            rate=self.mask_rate,
            most=self.max_predictions,
            mask_id=tokenizer.mask_id,
            vocab_size=tokenizer.vocab_size,
        )
        made = {
            "tokens": hidden.tokens,
            "segment_ids": real.astype(np.int32),
            "token_types": types,
            "masked_positions": hidden.positions,
            "masked_targets": hidden.targets,
            "masked_weights": hidden.weights,
        }
        return made | ({"next_sentence": found.random} if self.next_sentence else {})


def laid_out(
    stream: np.ndarray, pairs: sentence_pairs.Pairs, length: int, cls_id: int, sep_id: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``[CLS] A [SEP] B [SEP]`` (or ``[CLS] A [SEP]``): tokens, token types, and where A and B stand.

    Returns:
      int32 [B, T] (what lies behind the end is not padded yet), int32 [B, T], bool [B, T].
    """
    at = np.arange(length)
    in_a, in_b = (np.diff(x, axis=1) for x in (pairs.first, pairs.second))
    of_a = (at >= 1) & (at <= in_a)
    from_b = in_a + 2
    of_b = (at >= from_b) & (at < from_b + in_b)
    places = np.where(of_a, pairs.first[:, :1] + at - 1, pairs.second[:, :1] + at - from_b)
    plain = of_a | of_b
    tokens = np.where(plain, stream[np.where(plain, places, 0)], np.where(at == 0, cls_id, sep_id))
    types = (at >= from_b) & (at < from_b + in_b + 1) & (in_b > 0)
    return tokens.astype(np.int32), types.astype(np.int32), plain
