"""Makes the data that ships inside the package, from the originals.

    VITAX_DATA=path/to/data python scripts/make_embedded_data.py

Needs scikit-learn (for the UCI digits), ``$VITAX_DATA/fashion-mnist/*.gz``,
``$VITAX_DATA/shakespeare/shakespeare.txt.gz`` and ``$VITAX_DATA/bible/*.txt.gz``.
Writes ``fashion_mnist.npz``, ``digits.npz``, ``shakespeare.txt.gz``,
``new_testament_en_fr.tsv.xz`` and ``gospels_kjv.txt.gz`` into
``vitax/data/embedded``; the result depends on nothing but the originals.
"""

import gzip
import json
import lzma
import os
import pathlib
import re
import sys
import tempfile

import numpy as np
import sklearn.datasets

from vitax import tokenizer_training
from vitax.data import bible, splits
from vitax.data.sources import read_idx
from vitax.data.text import SHAKESPEARE

TARGET = pathlib.Path(__file__).parents[1] / "vitax" / "data" / "embedded"
TRAIN, TEST = 10_000, 1_000
LIMIT_BYTES = 6_000_000
# The last is held out by recipes.
PLAYS = ("AS YOU LIKE IT", "JULIUS CAESAR", "MACBETH", "THE MERCHANT OF VENICE", "A MIDSUMMER", "THE TEMPEST")
# Verses of the Old Testament.
MATTHEW = 23_145
HELD_OUT_VERSES, BPE_SIZE = 300, 4096


def fashion_mnist(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """A class-balanced subset of Fashion-MNIST: images uint8 [N, 28, 28], labels uint8 [N]."""
    arrays = {}
    for split, prefix, count in (("train", "train", TRAIN), ("test", "t10k", TEST)):
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
        # Sorted, so that the subset keeps the original's (already mixed) order.
        chosen = np.sort(splits.balanced_subset(labels, count, seed=0))
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[chosen], labels[chosen]
    return arrays


def digits() -> dict[str, np.ndarray]:
    """All UCI digits, 0..16 scaled to 0..255: 1,000 to test, class-balanced, and 797 to train."""
    data = sklearn.datasets.load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    labels = data.target.astype(np.uint8)
    test = np.sort(splits.balanced_subset(labels, TEST, seed=0))
    train = np.setdiff1d(np.arange(len(labels)), test)
    return {
        "train_images": images[train],
        "train_labels": labels[train],
        "test_images": images[test],
        "test_labels": labels[test],
    }


def shakespeare(folder: pathlib.Path) -> bytes:
    """The plays of ``PLAYS`` as they stand in the collection, compressed."""
    whole = gzip.decompress((folder / "shakespeare.txt.gz").read_bytes())
    documents = re.split(SHAKESPEARE.encode(), whole)
    chosen = [next(d for d in documents if d.lstrip().startswith(title.encode())) for title in PLAYS]
    return gzip.compress(b"\n\n".join(d.strip(b"\n") for d in chosen), mtime=0)


def new_testament(folder: pathlib.Path) -> bytes:
    """The verses from Matthew on, English, tab, French, without the marks of editors, compressed."""
    sides = []
    for name in ("en_web", "fr_segond1910"):
        verses = gzip.decompress((folder / f"{name}.txt.gz").read_bytes()).decode().splitlines()[MATTHEW:]
        sides.append([" ".join(re.sub(r"[<>\[\]{}]", "", verse).split()) for verse in verses])
    lines = [f"{english}\t{french}\n" for english, french in zip(*sides, strict=True)]
    return lzma.compress("".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME)


def gospels(folder: pathlib.Path) -> bytes:
    """The verses from Matthew to John in the King James Version, compressed."""
    chapters = bible.read(str(folder / "en_kjv.txt.gz"), "kjv")
    verses = [verse for n in range(bible.MATTHEW, bible.ACTS) for verse in chapters[n]]
    return gzip.compress("\n".join(verses).encode(), mtime=0)


def new_testament_tokenizer(verses: bytes) -> str:
    """A BPE of both languages, of the verses that recipes train on, as JSON without spaces."""
    lines = lzma.decompress(verses).decode().splitlines()[:-HELD_OUT_VERSES]
    text = "\n".join(side[i] for i in (0, 1) for side in (line.split("\t") for line in lines))
    with tempfile.TemporaryDirectory() as folder:
        given, made = pathlib.Path(folder) / "verses.txt", pathlib.Path(folder) / "tokenizer.json"
        given.write_text(text)
        tokenizer_training.train(tokenizer_training.of_paths([str(given)], "text"), "bpe", BPE_SIZE, made)
        return json.dumps(json.loads(made.read_text()), separators=(",", ":"), ensure_ascii=False) + "\n"


def main() -> None:
    root = os.environ.get("VITAX_DATA")
    if not root:
        sys.exit("Set VITAX_DATA to the folder that holds fashion-mnist/, shakespeare/ and bible/.")
    np.savez_compressed(TARGET / "fashion_mnist.npz", **fashion_mnist(pathlib.Path(root) / "fashion-mnist"))
    np.savez_compressed(TARGET / "digits.npz", **digits())
    (TARGET / "shakespeare.txt.gz").write_bytes(shakespeare(pathlib.Path(root) / "shakespeare"))
    verses = new_testament(pathlib.Path(root) / "bible")
    (TARGET / "new_testament_en_fr.tsv.xz").write_bytes(verses)
    (TARGET / "new_testament_en_fr.tokenizer.json").write_text(new_testament_tokenizer(verses))
    (TARGET / "gospels_kjv.txt.gz").write_bytes(gospels(pathlib.Path(root) / "bible"))
    total = sum(path.stat().st_size for path in TARGET.glob("*.*"))
    print(f"{total:,} bytes in {TARGET}")
    if total > LIMIT_BYTES:
        sys.exit(f"More than {LIMIT_BYTES:,} bytes: lower TRAIN.")


if __name__ == "__main__":
    main()
