"""Small tokenizers in files."""

import json

from vitax.data.tokenizers import BPE, WordPiece, files


def write_wordpiece(path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "to", "be", "##fore", "or", "not", ",", "[", "]", "mask"]
    path.write_text("\n".join(words) + "\n")
    return WordPiece(str(path))


def write_bpe(folder):
    """Bytes, and three merges: "th", "the", " the"."""
    letters = list(files.byte_letters())
    space = next(x for x, b in files.byte_letters().items() if b == 32)
    ids = {t: i for i, t in enumerate([*letters, "th", "the", f"{space}the", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text(f"#version: 0.2\nt h\nth e\n{space} the\n")
    return BPE(str(folder))
