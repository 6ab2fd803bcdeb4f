"""A small WordPiece tokenizer that needs no file: letters are pieces, frequent words are whole."""

import numpy as np

MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("the", "a", "and", "is", "not", "to", "be", "good", "bad", "film", "who", "was", "it", ".", "?", ",")
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz0123456789")
TOKENS = (*MARKS, *WORDS, *LETTERS[1:], *(f"##{c}" for c in LETTERS))

IDS = {token: i for i, token in enumerate(TOKENS)}


def write(folder):
    """The vocabulary as ``vocab.txt``; returns its path."""
    path = folder / "vocab.txt"
    path.write_text("\n".join(TOKENS) + "\n")
    return str(path)


class Pieces:
    """Splits at spaces; words that are not known whole fall into their letters."""

    vocab_size = len(TOKENS)
    pad_id, unk_id, cls_id, sep_id, mask_id = range(5)
    end_of_document = 3
    word_starts = np.array([not t.startswith("##") for t in TOKENS])

    def encode(self, text):
        ids = []
        for word in text.decode().lower().split():
            pieces = [word] if word in WORDS else [word[0], *(f"##{c}" for c in word[1:])]
            ids += [IDS.get(p, self.unk_id) for p in pieces]
        return np.array(ids, np.int32)

    def fingerprint(self):
        return {"kind": "pieces"}
