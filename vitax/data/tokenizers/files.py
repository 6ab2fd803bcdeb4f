"""The files of a tokenizer, and the engine that the ``tokenizers`` package makes of them."""

import functools
import hashlib
import importlib.resources
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vitax.core import paths
from vitax.core.errors import UserError, pick

TOKENIZER_JSON = "tokenizer.json"
EMBEDDED = "embedded:"
# The engine needs about 170 bytes of memory a byte of text, so long text goes in pieces.
_PIECE, _GROUP = 1 << 14, 64
# Between a word and the space behind it every engine here cuts, so pieces change no token.
_CUT = re.compile(r"(?<=\S)(?=[ \n])")


def read(path: str, layouts: Sequence[tuple[str, ...]]) -> dict[str, bytes]:
    """The files of a tokenizer.

    Args:
      path: a folder that holds the files of a layout, what the names of such files begin
        with (``dir/gpt2`` of ``dir/gpt2-encoder.json``), or the file of a layout of one;
        ``embedded:NAME`` is what ships with the embedded text of that name (``NAME.vocab.txt``).
      layouts: names of files that make a tokenizer, the first that is there counts.

    Returns:
      name of the layout -> content.

    Raises:
      UserError: nothing there.
    """
    if path.startswith(EMBEDDED):
        shipped = {file.name: file for file in importlib.resources.files("vitax.data.embedded").iterdir()}
        # A layout that is named first counts.
        by_name = {
            f"{EMBEDDED}{name.removesuffix(f'.{layout[0]}')}": layout
            for layout in reversed(layouts)
            for name in shipped
            if name.endswith(f".{layout[0]}")
        }
        layout = pick(by_name, path, "data.tokenizer.path")
        return {name: shipped[f"{path.removeprefix(EMBEDDED)}.{name}"].read_bytes() for name in layout}
    root = paths.parse(path)
    if root.is_file():
        alone = [name for name, *others in layouts if not others and name.endswith(root.suffix)]
        if root.suffix and alone:
            return {alone[0]: root.read_bytes()}
    for layout in layouts:
        for found in ([root / name for name in layout], [root.with_name(f"{root.name}-{name}") for name in layout]):
            if all(file.is_file() for file in found):
                return {name: file.read_bytes() for name, file in zip(layout, found)}
    wanted = ", or ".join(" with ".join(layout) for layout in layouts)
    what = "is no such file" if root.is_file() else "holds none" if root.is_dir() else "no such file or folder"
    raise UserError(f"data.tokenizer.path: {path}: {what}. Expected a folder with {wanted}; or such a file.")


def digest(files: Mapping[str, bytes], *settings: Any) -> str:
    """16 hex digits over contents (not names) and settings."""
    summed = hashlib.blake2b(digest_size=8)
    for content in (*files.values(), json.dumps(settings).encode()):
        summed.update(len(content).to_bytes(8, "little") + content)
    return summed.hexdigest()


def json_of(content: bytes, path: str, name: str) -> Any:
    """JSON of a file of a tokenizer; UserError where it is none."""
    try:
        return json.loads(content)
    except ValueError as error:
        raise UserError(f"data.tokenizer.path: {path}: {name} is not JSON ({error}).") from error


def engine_of(files: Mapping[str, bytes], path: str, kind: str) -> Any:
    """The engine of a ``tokenizer.json`` whose model is of a kind (``BPE``, ``WordPiece``).

    Padding, truncation and templates of the file are left out: windows and marks are
    made here. None of its marks is looked for in text.

    Raises:
      UserError: another kind of tokenizer, or a file that the package cannot read.
    """
    import tokenizers

    plain = json_of(files[TOKENIZER_JSON], path, TOKENIZER_JSON)
    found = plain.get("model", {}).get("type") if isinstance(plain, dict) else None
    if found != kind:
        ours = {"BPE": "bpe", "WordPiece": "wordpiece"}.get(str(found))
        mend = f"Set data.tokenizer.kind={ours}." if ours else "Kinds that are read: bpe, wordpiece."
        raise UserError(f"data.tokenizer.path: {path}: holds a tokenizer of type {found!r}, expected {kind!r}. {mend}")
    plain |= {"padding": None, "truncation": None, "post_processor": None}
    # A mark that is special can be told not to be looked for; one that is not, cannot.
    plain["added_tokens"] = [{**token, "special": True} for token in plain.get("added_tokens") or ()]
    try:
        engine = tokenizers.Tokenizer.from_str(json.dumps(plain))
    except Exception as error:  # the package raises a bare Exception
        raise UserError(f"data.tokenizer.path: {path}: {TOKENIZER_JSON} cannot be read ({error}).") from error
    engine.encode_special_tokens = True
    return engine


def text_of(content: bytes, place: str = "text") -> str:
    """UTF-8 as text.

    Args:
      content: of a file, or a part of it.
      place: where it is from, for messages.

    Raises:
      UserError: another encoding; says at which byte.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{place}: not UTF-8 (byte 0x{content[error.start]:02x} at {error.start}). Convert it first: "
            "iconv -f latin1 -t utf-8 FILE. data.tokenizer.kind=bytes takes any bytes."
        ) from error


def encode(engine: Any, text: bytes, vocab_size: int) -> np.ndarray:
    """Token ids of text, uint16 or int32 [tokens]; long text in pieces, on all cores."""
    dtype = np.uint16 if vocab_size <= 1 << 16 else np.int32
    parts, rest = [np.zeros(0, dtype)], pieces(text_of(text))
    while group := list(itertools.islice(rest, _GROUP)):
        parts += [np.array(e.ids, dtype) for e in engine.encode_batch_fast(group, add_special_tokens=False)]
    return np.concatenate(parts)


def pieces(text: str) -> Iterator[str]:
    """Long text cut where no token reaches across: between a word and the space behind it."""
    start = 0
    while len(text) - start > _PIECE and (cut := _CUT.search(text, start + _PIECE)):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def tokens_of(engine: Any) -> list[str]:
    """The tokens by id, marks among them.

    Raises:
      UserError: ids that are not 0 .. n - 1.
    """
    ids = engine.get_vocab(with_added_tokens=True)
    tokens = sorted(ids, key=ids.__getitem__)
    if [ids[t] for t in tokens] != list(range(len(tokens))):
        raise UserError(f"data.tokenizer: {len(tokens)} tokens, but their ids are not 0 to {len(tokens) - 1}.")
    return tokens


@functools.cache
def byte_letters() -> dict[str, int]:
    """The printable letter that stands for each byte in byte-level BPE files.

    Reference: Radford et al. (2019), section 2.2, as in the published vocabulary: printable
    Latin-1 letters stand for themselves, the others for those from U+0100 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}
