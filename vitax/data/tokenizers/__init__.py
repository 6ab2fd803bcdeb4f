"""Text to token ids and back: ``TOKENIZERS``.

A tokenizer has ``vocab_size``, ``end_of_document`` (the id of the mark between documents),
``encode(bytes)`` to an array of ids without any mark, ``decode(ids)`` to bytes,
``token_bytes`` float32 [vocab_size] and ``fingerprint()``. ``lossless`` says whether a text
comes back byte for byte, so that its bytes can be counted by its tokens. Those with a
``path`` open it at the first use, and have ``files``: what they consist of, so that a
checkpoint can carry it.
Text is text: a mark that somebody typed, such as ``<|endoftext|>``, is encoded as any word.
"""

from typing import Any

from vitax.data.tokenizers.bpe import BPE
from vitax.data.tokenizers.byte_tokens import Bytes
from vitax.data.tokenizers.wordpiece import WordPiece

TOKENIZERS: dict[str, Any] = {"bpe": BPE, "bytes": Bytes, "wordpiece": WordPiece}

__all__ = ["BPE", "TOKENIZERS", "Bytes", "WordPiece"]
