"""Prompts with their completions, packed into rows of tokens: ``PROMPT_SOURCES``.

A prompt stands behind the tokenizer's mark, its completion directly behind it, and a mark
ends it. Every token is an input, but only the completion and its end count: ``loss_mask``.
As many pairs as fit follow each other in a row, each a segment that sees itself alone.
"""

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from vitax.core.errors import UserError
from vitax.data import document_files, splits

log = logging.getLogger("vitax")


class _Packed(NamedTuple):
    """All pairs end to end, without room between; N inputs in R rows.

    Attributes:
      tokens: [N], each pair's mark, prompt and completion.
      targets: [N], the token after each.
      pair: int32 [N], which pair it is of.
      counts: bool [N], whether the target is of a completion.
      starts: int64 [R + 1], the first input of each row, and N.
    """

    tokens: np.ndarray
    targets: np.ndarray
    pair: np.ndarray
    counts: np.ndarray
    starts: np.ndarray


@dataclasses.dataclass(frozen=True)
class PromptCompletion:
    """Pairs of a prompt and its completion in JSON lines, for fine-tuning a language model.

    Attributes:
      path: a file (.jsonl or .jsonl.gz), or a folder whose such files are read in the order
        of their names.
      tokenizer: given by the recipe's ``data.tokenizer``.
      length: T, given by ``data.length``.
      prompt: the field that holds prompts.
      completion: the field that holds completions.
      skip_long: leave out pairs that are longer than T instead of refusing them.
      split: a slice of the pairs, such as ``[:90%]`` or ``[-5:]``.
    """

    path: str
    tokenizer: Any
    length: int
    prompt: str = "prompt"
    completion: str = "completion"
    skip_long: bool = False
    split: str = ""

    class_names = None

    def _texts(self) -> Iterator[tuple[str, list[bytes]]]:
        """Place, and prompt and completion, of those in the split."""
        found = list(
            document_files.rows(document_files.find(self.path, document_files.is_json_lines, ".jsonl or .jsonl.gz"))
        )
        start, stop = splits.bounds(splits.parse(self.split, "prompt_completion")[1], len(found))
        for place, row in found[start:stop]:
            yield place, [document_files.text_of(row, place, field) for field in (self.prompt, self.completion)]

    def documents(self) -> Iterator[bytes]:
        """Prompts and completions, as text to train a tokenizer on."""
        return (text for _, pair in self._texts() for text in pair)

    @functools.cached_property
    def _packed(self) -> _Packed:
        mark = self.tokenizer.end_of_document
        tokens, targets, pair, counts = (list[np.ndarray]() for _ in range(4))
        starts, used, room, skipped = list[int](), 0, 0, 0
        for place, texts in self._texts():
            prompt, completion = map(self.tokenizer.encode, texts)
            whole = np.concatenate([[mark], prompt, completion, [mark]]).astype(np.int32)
            needs = len(whole) - 1
            if needs > self.length:
                if self.skip_long:
                    skipped += 1
                    continue
                raise UserError(
                    f"{place}: {needs} tokens with its mark, but data.length is {self.length}. Set it higher (where "
                    "the model's context allows), or data.source.skip_long=True to leave such pairs out."
                )
            if needs > room:
                starts.append(used)
                room = self.length
            pair.append(np.full(needs, len(tokens), np.int32))
            tokens.append(whole[:-1])
            targets.append(whole[1:])
            counts.append(np.arange(needs) >= len(prompt))
            used, room = used + needs, room - needs
        if not tokens:
            why = f"none of {skipped} pairs fits data.length {self.length}" if skipped else "no pair is in it"
            raise UserError(f'prompt_completion: {self.path}, split "{self.split}": {why}.')
        if skipped:
            log.warning(
                "prompt_completion: %d of %d pairs are longer than data.length %d and are left out.",
                *(skipped, skipped + len(tokens), self.length),
            )
        join = np.concatenate
        return _Packed(join(tokens), join(targets), join(pair), join(counts), np.array([*starts, used], np.int64))

    @property
    def num_pairs(self) -> int:
        """How many there are, those that were too long left out."""
        return int(self._packed.pair[-1]) + 1

    @property
    def largest_id(self) -> int:
        """Of all tokens."""
        return int(max(self._packed.tokens.max(), self._packed.targets.max()))

    def __len__(self) -> int:
        return len(self._packed.starts) - 1

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Rows: tokens, targets and segment_ids int32 [B, T], loss_mask bool [B, T]; padding has segment 0."""
        packed, indices = self._packed, np.asarray(indices, np.int64)
        at = packed.starts[indices, None] + np.arange(self.length)
        real = at < packed.starts[indices + 1, None]
        at = np.minimum(at, len(packed.tokens) - 1)
        pair = packed.pair[at]
        return {
            "tokens": np.where(real, packed.tokens[at], 0),
            "targets": np.where(real, packed.targets[at], 0),
            "segment_ids": np.where(real, 1 + pair - pair[:, :1], 0),
            "loss_mask": real & packed.counts[at],
        }

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: values[0] for name, values in self.gather(np.array([index])).items()}

    def fingerprint(self) -> dict[str, Any]:
        digest = hashlib.blake2b(digest_size=8)
        for values in self._packed:
            digest.update(np.ascontiguousarray(values).tobytes())
        return {
            "kind": "prompt_completion",
            "tokenizer": self.tokenizer.fingerprint(),
            "length": self.length,
            "pairs": self.num_pairs,
            "rows": len(self),
            "digest": digest.hexdigest(),
        }

    def describe(self, index: int) -> str:
        return f"row {index}"


PROMPT_SOURCES: dict[str, Any] = {"prompt_completion": PromptCompletion}
