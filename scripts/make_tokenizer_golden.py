"""Writes tests/golden/tokenizers.json: texts with their ids by other programs.

    python scripts/make_tokenizer_golden.py DATA [--out tests/golden]

DATA holds gpt2-encoder.json, gpt2-vocab.bpe and bert-uncased-vocab.txt. Needs tiktoken for GPT-2
and transformers' BertTokenizerLegacy for BERT: neither shares code with the engine in use here.
"""

import argparse
import json
from pathlib import Path

import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

# How GPT-2 splits text before merging.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TEXTS = (
    "",
    " ",
    "Hello world",
    " leading,   several    spaces and trailing  ",
    "tabs\tand\nnew\n\n\nlines \n  indented\r\n",
    "I'm, you've, they'll; it's 'quoted' DON'T",
    "12345678901234567890 3.14159 1,000,000 2026-11-25 \u0663\u0664",
    "caf\u00e9 na\u00efve Z\u00fcrich \u00c5ngstr\u00f6m e\u0301 \u00df",
    "\U0001f600 family \U0001f468\u200d\U0001f469\u200d\U0001f467 flags \U0001f1e8\U0001f1ed, \u2764\ufe0f",
    "\u6771\u4eac\u90fd and \u4e2d\u6587\u5b57 mixed \ud55c\uad6d\uc5b4 \u65e5\u672c\u8a9e\u30c6\u30ad\u30b9\u30c8",
    "\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u05e2\u05d1\u05e8\u05d9\u05ea \u0639\u0631\u0628\u064a",
    "\u0939\u093f\u0902\u0926\u0940",
    "<|endoftext|> typed, [MASK] typed, [CLS][SEP] [UNK] [PAD]",
    "def f(x):\n    return {k: v**2 for k, v in x.items()}  # comment\n",
    "antidisestablishmentarianism unaffable embeddings hyperparametrisation",
    "control \x00\x01\x7f and \ufffd, \u00a0 no-break, \u2003 em space, \u200b zero width",
    "https://example.org/path?query=1&other=two#part e-mail@example.org $5.00 50% \u00a3\u20ac\u00a5",
    "x" * 101 + " " + "y" * 100,
    "The Tempest. [Enter a Ship-Master and a Boatswain] MASTER. Boatswain!\n",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("tests/golden"))
    args = parser.parse_args()
    ranks = data_gym_to_mergeable_bpe_ranks(
        str(args.data / "gpt2-vocab.bpe"), str(args.data / "gpt2-encoder.json"), clobber_one_byte_tokens=False
    )
    gpt2 = tiktoken.Encoding("gpt2", pat_str=GPT2, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})
    bert = BertTokenizerLegacy(str(args.data / "bert-uncased-vocab.txt"), do_lower_case=True)
    # The marks are to be words here: this tokenizer looks for them on its own.
    plain = BertTokenizerLegacy(str(args.data / "bert-uncased-vocab.txt"), do_lower_case=True, never_split=[])
    rows = []
    for text in TEXTS:
        words = plain.basic_tokenizer.tokenize(text, never_split=[])
        pieces = [piece for word in words for piece in plain.wordpiece_tokenizer.tokenize(word)]
        row = {"text": text, "gpt2": gpt2.encode_ordinary(text), "bert": plain.convert_tokens_to_ids(pieces)}
        row["bert_with_marks"] = bert.encode(text, add_special_tokens=False)
        rows.append(row)
    lines = ",\n".join(json.dumps(row) for row in rows)
    (args.out / "tokenizers.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
