"""WordPiece, as BERT's: words, and pieces of those that are rare."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitax.core.errors import UserError
from vitax.data.tokenizers import files

VOCAB = "vocab.txt"
MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUES = "##"
# A longer word is unknown as a whole, as published.
MAX_LETTERS = 100


@dataclasses.dataclass(frozen=True)
class WordPiece:
    """WordPiece: what a text says, not its every byte (case, accents and spaces may go).

    ``pad_id, unk_id, cls_id, sep_id, mask_id`` are its marks, and documents end with ``sep_id``.

    Attributes:
      path: a ``vocab.txt`` (a token a line), a ``tokenizer.json``, or a folder with either.
      lowercase: for a ``vocab.txt``: lower case, and accents stripped, as BERT uncased; a
        ``tokenizer.json`` says so itself.

    Reference: Devlin et al. (2019), section 3, and the published code's tokenization.
    """

    lossless = False

    path: str
    lowercase: bool = True

    @functools.cached_property
    def files(self) -> Mapping[str, bytes]:
        """name -> content of what it is made of."""
        return files.read(self.path, ((files.TOKENIZER_JSON,), (VOCAB,)))

    @functools.cached_property
    def _engine(self) -> Any:
        if VOCAB not in self.files:
            return files.engine_of(self.files, self.path, "WordPiece")
        lines = files.text_of(self.files[VOCAB]).removesuffix("\n").split("\n")
        return engine({line.rstrip("\r"): i for i, line in enumerate(lines)}, self.lowercase)

    @functools.cached_property
    def _tokens(self) -> list[str]:
        return files.tokens_of(self._engine)

    @functools.cached_property
    def _marks(self) -> dict[str, int]:
        ids = {mark: self._engine.token_to_id(mark) for mark in MARKS}
        lacking = [mark for mark, i in ids.items() if i is None]
        if lacking:
            raise UserError(f"data.tokenizer.path: {self.path}: lacks {', '.join(lacking)}, which BERT's has.")
        return ids

    @property
    def vocab_size(self) -> int:
        """Ids, marks among them."""
        return len(self._tokens)

    @property
    def pad_id(self) -> int:
        """Of ``[PAD]``."""
        return self._marks["[PAD]"]

    @property
    def unk_id(self) -> int:
        """Of ``[UNK]``: a word that the pieces do not spell."""
        return self._marks["[UNK]"]

    @property
    def cls_id(self) -> int:
        """Of ``[CLS]``, in front of everything."""
        return self._marks["[CLS]"]

    @property
    def sep_id(self) -> int:
        """Of ``[SEP]``, behind each text."""
        return self._marks["[SEP]"]

    @property
    def mask_id(self) -> int:
        """Of ``[MASK]``."""
        return self._marks["[MASK]"]

    @property
    def end_of_document(self) -> int:
        """``sep_id``."""
        return self.sep_id

    def encode(self, text: bytes) -> np.ndarray:
        """Token ids, uint16 or int32 [tokens]; no mark is added or looked for.

        Raises:
          UserError: not UTF-8.
        """
        return files.encode(self._engine, text, self.vocab_size)

    def encode_masked(self, text: bytes) -> np.ndarray:
        """``encode`` of text in which ``[MASK]`` is the mark."""
        first, *rest = [self.encode(part) for part in text.split(b"[MASK]")]
        mask = np.array([self.mask_id], first.dtype)
        return np.concatenate([first, *(x for part in rest for x in (mask, part))])

    def encode_with_offsets(self, text: bytes) -> tuple[np.ndarray, np.ndarray]:
        """``encode``, and where each token stands: int32 [tokens, 2], first and one past the last letter of the text.

        Letters are Unicode characters of the decoded text, which answers to questions are given in.
        """
        [made] = self._engine.encode_batch([files.text_of(text)], add_special_tokens=False)
        return np.array(made.ids, np.int32), np.array(made.offsets, np.int32).reshape(-1, 2)

    def token(self, index: int) -> str:
        """A piece or mark as the vocabulary has it: ``##ing``, ``[MASK]``; ``#ID`` of an id that it lacks."""
        return self._tokens[index] if index < self.vocab_size else f"#{index}"

    def decode(self, ids: Sequence[int]) -> bytes:
        """Words with single spaces between; marks and ids beyond give none, but an unknown word ``[UNK]``."""
        silent = set(self._marks.values()) - {self.unk_id}
        words = [self._tokens[int(i)] for i in ids if int(i) < self.vocab_size and int(i) not in silent]
        return " ".join(words).replace(f" {CONTINUES}", "").removeprefix(CONTINUES).encode()

    @functools.cached_property
    def token_bytes(self) -> np.ndarray:
        """float32 [vocab_size]: bytes of its letters; spaces between words are in no token."""
        plain = [token.removeprefix(CONTINUES).encode() for token in self._tokens]
        lengths = np.array([len(token) for token in plain], np.float32)
        lengths[list(self._marks.values())] = 0
        return lengths

    @functools.cached_property
    def word_starts(self) -> np.ndarray:
        """bool [vocab_size]: the pieces that begin a word."""
        return np.array([not token.startswith(CONTINUES) for token in self._tokens])

    def fingerprint(self) -> dict[str, Any]:
        """What decides the ids, as JSON-ready data: contents, not paths."""
        settings = (self.lowercase,) if VOCAB in self.files else ()
        return {"kind": "wordpiece", "vocab_size": self.vocab_size, "digest": files.digest(self.files, *settings)}


def engine(vocab: Mapping[str, int], lowercase: bool) -> Any:
    """The engine of a vocabulary, with BERT's cleaning and splitting of words."""
    import tokenizers

    made = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            vocab=dict(vocab),
            unk_token="[UNK]",
            max_input_chars_per_word=MAX_LETTERS,
            continuing_subword_prefix=CONTINUES,
        )
    )
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return made
