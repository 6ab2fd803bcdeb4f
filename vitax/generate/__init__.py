"""Text from a language model: sampling and cached decoding."""
