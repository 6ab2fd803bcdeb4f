"""Bytes as tokens: no file, no training."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Bytes:
    """One token a byte of UTF-8; id 256 marks where a document begins (and the last one ended)."""

    lossless = True
    vocab_size = 257
    end_of_document = 256

    def encode(self, text: bytes) -> np.ndarray:
        """Token ids, uint16 [tokens]."""
        return np.frombuffer(text, np.uint8).astype(np.uint16)

    def decode(self, ids: Sequence[int]) -> bytes:
        """The bytes of token ids; the mark gives none."""
        return bytes(int(i) for i in ids if i < 256)

    @functools.cached_property
    def token_bytes(self) -> np.ndarray:
        """float32 [vocab_size]: bytes of text that each token stands for."""
        return np.append(np.ones(256, np.float32), np.float32(0))

    def fingerprint(self) -> dict[str, Any]:
        """What decides the ids, as JSON-ready data."""
        return {"kind": "bytes"}
