"""Byte-level byte-pair encoding, as GPT-2's."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitax.core.errors import UserError, suggest
from vitax.data.tokenizers import files

LAYOUTS = ((files.TOKENIZER_JSON,), ("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))


@dataclasses.dataclass(frozen=True)
class BPE:
    """Byte-level BPE: any UTF-8 text becomes tokens and back, byte for byte.

    Attributes:
      path: a ``tokenizer.json`` (as ``vitax tokenizer train`` writes it), a folder with one or
        with GPT-2's ``encoder.json`` and ``vocab.bpe``, or what the names of these two begin
        with (``dir/gpt2`` of ``dir/gpt2-encoder.json``).
      end: the token that marks where a document begins (and the last one ended).

    Reference: Sennrich et al. (2016); Radford et al. (2019), section 2.2.
    """

    lossless = True

    path: str
    end: str = "<|endoftext|>"

    @functools.cached_property
    def files(self) -> Mapping[str, bytes]:
        """name -> content of what it is made of."""
        return files.read(self.path, LAYOUTS)

    @functools.cached_property
    def _engine(self) -> Any:
        if files.TOKENIZER_JSON not in self.files:
            return _published(self.files, self.path)
        engine = files.engine_of(self.files, self.path, "BPE")
        splitting = files.json_of(self.files[files.TOKENIZER_JSON], self.path, files.TOKENIZER_JSON)
        before, normal = splitting.get("pre_tokenizer") or {}, splitting.get("normalizer")
        plain = before.get("type") == "ByteLevel" and not before.get("add_prefix_space")
        if normal or not plain or not before.get("use_regex", True):
            raise UserError(
                f"data.tokenizer.path: {self.path}: is not byte-level as GPT-2's is (pre_tokenizer {before}, "
                f"normalizer {normal}). Expected ByteLevel with its own regex, no prefix space and no normalizer."
            )
        return engine

    @functools.cached_property
    def _tokens(self) -> list[bytes | None]:
        """The bytes of each token; None for marks."""
        letters = files.byte_letters()
        marks = {t.content for t in self._engine.get_added_tokens_decoder().values()} | {self.end}
        found: list[bytes | None] = []
        for token in files.tokens_of(self._engine):
            whole = token not in marks and all(letter in letters for letter in token)
            found.append(bytes(letters[x] for x in token) if whole else None)
        return found

    @property
    def vocab_size(self) -> int:
        """Ids, marks among them."""
        return len(self._tokens)

    @functools.cached_property
    def end_of_document(self) -> int:
        """The id of ``end``."""
        found = self._engine.token_to_id(self.end)
        if found is None:
            marks = [t.content for t in self._engine.get_added_tokens_decoder().values()]
            raise UserError(
                f'data.tokenizer.end: "{self.end}" is no token of {self.path}.{suggest(self.end, marks)} '
                f"Its marks: {', '.join(marks) or 'none'}."
            )
        return found

    def encode(self, text: bytes) -> np.ndarray:
        """Token ids, uint16 or int32 [tokens].

        Raises:
          UserError: not UTF-8.
        """
        return files.encode(self._engine, text, self.vocab_size)

    def decode(self, ids: Sequence[int]) -> bytes:
        """The bytes of token ids; marks, and ids that a larger vocabulary has besides, give none."""
        return b"".join(self._tokens[int(i)] or b"" for i in ids if int(i) < self.vocab_size)

    @functools.cached_property
    def token_bytes(self) -> np.ndarray:
        """float32 [vocab_size]: bytes of text that each token stands for; 0 for marks."""
        return np.array([len(token or b"") for token in self._tokens], np.float32)

    def fingerprint(self) -> dict[str, Any]:
        """What decides the ids, as JSON-ready data: contents, not paths."""
        return {"kind": "bpe", "vocab_size": self.vocab_size, "digest": files.digest(self.files, self.end)}


def _published(content: Mapping[str, bytes], path: str) -> Any:
    """The engine of GPT-2's two files: ids of tokens, and merges in order under a line of version."""
    import tokenizers

    (ids_name, ids), (merges_name, merges) = content.items()
    lines = [line for line in files.text_of(merges).split("\n") if line and not line.startswith("#version")]
    pairs: list[Any] = [tuple(line.split(" ")) for line in lines]
    if any(pair[-1].endswith("</w>") for pair in pairs):
        raise UserError(
            f"data.tokenizer.path: {path}: {merges_name} marks ends of words by </w>, as GPT-1's, which is not "
            "byte-level. Expected merges as GPT-2's."
        )
    try:
        model = tokenizers.models.BPE(vocab=files.json_of(ids, path, ids_name), merges=pairs)
    except Exception as error:  # the package raises a bare Exception
        raise UserError(f"data.tokenizer.path: {path}: {ids_name} and {merges_name} do not fit ({error}).") from error
    engine = tokenizers.Tokenizer(model)
    engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return engine
