"""Text -> a tokenizer of one's own: ``vitax tokenizer train``."""

import collections
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vitax.core.errors import UserError, pick
from vitax.data import document_files
from vitax.data.tokenizers import BPE, Bytes, WordPiece, files, wordpiece

END = "<|endoftext|>"
# A pair that comes once is no pattern.
MIN_FREQUENCY = 2
# Of WordPiece: rarer letters become [UNK], as scripts of many thousand signs would fill the vocabulary.
MAX_ALPHABET = 1000


@dataclasses.dataclass(frozen=True)
class Text:
    """Documents that can be gone through as often as wanted.

    Attributes:
      name: where they are from, for messages.
      read: starts over.
    """

    name: str
    read: Callable[[], Iterator[bytes]]

    def __iter__(self) -> Iterator[bytes]:
        return self.read()


def train(text: Text, kind: str, vocab_size: int, out: Path, lowercase: bool = False) -> dict[str, Any]:
    """Learns a vocabulary from text and writes it as ``tokenizer.json``; the same text gives the same file.

    Args:
      text: of ``of_paths`` or ``of_recipe``.
      kind: ``bpe`` (bytes, as GPT-2's) or ``wordpiece`` (words, as BERT's).
      vocab_size: ids, marks among them.
      out: the file to write.
      lowercase: of ``wordpiece``: lower case, accents stripped.

    Returns:
      ``{"kind", "file", "vocab_size", "digest", "bytes", "words", "tokens"}``; the last three
      are of the text that it was trained on.

    Raises:
      UserError: no text, a vocabulary too small for the letters, or a file that is there already.
    """
    made_by: Any = pick({"bpe": BPE, "wordpiece": WordPiece}, kind, "--kind")
    if out.suffix != ".json":
        raise UserError(f"--out {out}: expected a name that ends in .json, such as tokenizer.json.")
    if out.exists():
        raise UserError(f"--out {out}: is there already, and a run may need it. Choose another name, or delete it.")
    if lowercase and kind == "bpe":
        raise UserError("--lowercase: bpe gives every byte of a text back; only --kind wordpiece can leave case out.")
    if kind == "bpe" and vocab_size < 257:
        raise UserError(f"--vocab-size {vocab_size}: bpe needs 257 (256 bytes and a mark), and more to learn any.")
    if not any(document.strip() for document in text):
        raise UserError(f"tokenizer train: no text in {text.name}.")
    engine = _bpe(text, vocab_size) if kind == "bpe" else _wordpiece(text, vocab_size, lowercase)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(json.loads(engine.to_str()), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    made = made_by(str(out))
    about = dict.fromkeys(("bytes", "words", "tokens"), 0)
    for document in text:
        counts = len(document), len(document.split()), len(made.encode(document))
        about = {name: n + more for (name, n), more in zip(about.items(), counts)}
    fingerprint = made.fingerprint()
    return {"kind": kind, "file": str(out), **{k: fingerprint[k] for k in ("vocab_size", "digest")}, **about}


def lines(row: dict[str, Any]) -> list[str]:
    """What was made, and the way to use it."""
    per_token, per_word = row["bytes"] / row["tokens"], row["tokens"] / max(row["words"], 1)
    size, field = row["vocab_size"], "--config.data.tokenizer"
    return [
        f"{row['file']}: {row['kind']}, {size} tokens, digest {row['digest']}",
        f"on its text: {per_token:.2f} bytes a token, {per_word:.2f} tokens a word ({row['tokens']:,} tokens)",
        f"use it: {field}=\"{{'kind': '{row['kind']}', 'path': '{row['file']}'}}\" --config.data.vocab_size={size}",
    ]


def read(paths: Sequence[str], field: str, config: str | None, overrides: Sequence[str]) -> Text:
    """Text as the command line names it: ``of_paths``, or ``of_recipe`` of a recipe with its overrides.

    Raises:
      UserError: both or neither.
    """
    if bool(paths) == bool(config):
        raise UserError("tokenizer train: expected text to learn from: PATHs, or --config NAME[:VARIANT], not both.")
    if not config:
        return of_paths(paths, field)
    from vitax import recipe

    return of_recipe(recipe.load(config, list(overrides)).data, config)


def of_paths(paths: Sequence[str], field: str = "text") -> Text:
    """The documents of files and folders of .txt, .gz and .jsonl.

    Args:
      paths: files and folders.
      field: of JSON lines, that holds the text.

    Raises:
      UserError: nothing there.
    """

    def wanted(name: str) -> bool:
        return name.endswith((".txt", ".gz", ".jsonl"))

    found = [f for path in paths for f in document_files.find(path, wanted, ".txt, .gz or .jsonl", "tokenizer train")]

    def read() -> Iterator[bytes]:
        for file in found:
            if document_files.is_json_lines(file.name):
                for place, row in document_files.rows([file]):
                    yield document_files.text_of(row, place, field)
            else:
                for place, text in document_files.of_text([file], None):
                    files.text_of(text, place)
                    yield text

    return Text(", ".join(paths), read)


def of_recipe(data: Any, name: str) -> Text:
    """The documents that a recipe trains on, its split and no other.

    Args:
      data: ``data`` of a recipe of text.
      name: of the recipe.

    Raises:
      UserError: a recipe of images.
    """
    if data.size is not None:
        raise UserError(f"tokenizer train: --config {name} trains on images; expected a recipe of text.")
    # Which tokens there will be is not known yet, and does not matter to the documents.
    source = data.open(data.source, "data.source", Bytes())
    if not hasattr(source, "documents"):
        kind = data.source["kind"]
        raise UserError(
            f'tokenizer train: --config {name}: its source "{kind}" gives no documents; name files instead.'
        )
    return Text(f"--config {name}", source.documents)


def _pieces(text: Text) -> Iterator[str]:
    """Text cut where no token can reach across."""
    for document in text:
        yield from files.pieces(files.text_of(document))


def _bpe(text: Text, vocab_size: int) -> Any:
    import tokenizers

    engine = tokenizers.Tokenizer(tokenizers.models.BPE())
    engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[END],
        initial_alphabet=sorted(files.byte_letters()),
        show_progress=False,
    )
    engine.train_from_iterator(_pieces(text), trainer=trainer)
    return engine


def _wordpiece(text: Text, vocab_size: int, lowercase: bool) -> Any:
    import tokenizers

    start = {mark: i for i, mark in enumerate(wordpiece.MARKS)}
    engine = wordpiece.engine(start, lowercase)
    letters = _alphabet(engine.normalizer, text)
    # Given in front, since the trainer numbers letters inside words in an order that changes from run to run.
    inside = [wordpiece.CONTINUES + letter for letter in letters]
    least = len(start) + 2 * len(letters)
    if vocab_size < least:
        raise UserError(
            f"--vocab-size {vocab_size}: the text has {len(letters)} letters, which with those inside words and "
            f"{len(start)} marks need {least}. Expected at least that, and more to learn any word."
        )
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[*start, *inside],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        continuing_subword_prefix=wordpiece.CONTINUES,
        show_progress=False,
    )
    engine.train_from_iterator(_pieces(text), trainer=trainer)
    made = wordpiece.engine(engine.get_vocab(), lowercase)
    made.decoder = tokenizers.decoders.WordPiece(prefix=wordpiece.CONTINUES)
    made.add_special_tokens(list(wordpiece.MARKS))
    return made


def _alphabet(normalizer: Any, text: Text) -> list[str]:
    """The letters of words, the commonest ``MAX_ALPHABET`` of them, sorted."""
    counts = collections.Counter[str]()
    for piece in _pieces(text):
        counts.update(normalizer.normalize_str(piece))
    present = [letter for letter in counts if not letter.isspace()]
    common = sorted(present, key=lambda letter: (-counts[letter], letter))[:MAX_ALPHABET]
    return sorted(common)
