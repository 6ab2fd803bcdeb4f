"""The sources of text by name: ``TEXT_SOURCES`` of documents, ``PAIR_SOURCES`` of pairs."""

from typing import Any

from vitax.data.pairs import EmbeddedPairs, Parallel
from vitax.data.text import EmbeddedText, JSONLines, Text
from vitax.data.text_mixture import TextMixture
from vitax.data.tfds_text import TfdsPairs, TfdsText

TEXT_SOURCES: dict[str, Any] = {
    "embedded_text": EmbeddedText,
    "json_lines": JSONLines,
    "text": Text,
    "text_mixture": TextMixture,
    "tfds_text": TfdsText,
}
PAIR_SOURCES: dict[str, Any] = {"embedded_pairs": EmbeddedPairs, "parallel": Parallel, "tfds_pairs": TfdsPairs}
