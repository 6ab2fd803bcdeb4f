"""The tokenizers that a checkpoint carries: a model without its own is of no use.

They are in the metadata of every checkpoint, compressed, so that they are written, sealed
and copied with it, to object stores too.
"""

import atexit
import base64
import re
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitax.checkpoint import store, warm_start
from vitax.construct import construct
from vitax.core.errors import UserError
from vitax.data.step_indexed import difference
from vitax.data.tokenizers import TOKENIZERS
from vitax.specs import kinds

# field of ``data`` -> {"files": name -> base64 of zlib, "fingerprint"}
Packed = Mapping[str, Mapping[str, Any]]


def _of_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """field -> tokenizer, for those of ``data`` of a recipe that are made of files."""
    specs = {k: v for k, v in data.items() if isinstance(v, Mapping) and v.get("kind") in TOKENIZERS and "path" in v}
    return {field: construct(TOKENIZERS, spec, f"data.{field}") for field, spec in specs.items()}


def pack(data: Mapping[str, Any]) -> Packed | None:
    """The tokenizers of ``data`` of a recipe as JSON-ready data; None where they need no file."""
    packed = {
        field: {"files": {n: _compress(x) for n, x in made.files.items()}, "fingerprint": made.fingerprint()}
        for field, made in _of_data(data).items()
    }
    return packed or None


def unpack(recipe: Mapping[str, Any], packed: Packed | None) -> dict[str, Any]:
    """A recipe as plain data whose tokenizers are those that its checkpoint carries.

    They lie in a folder of this process alone, which it removes at its end.
    """
    data = dict(recipe["data"])
    for field, one in (packed or {}).items():
        folder = tempfile.mkdtemp(prefix="vitax-tokenizer-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _write(one, Path(folder))
        data[field] = {**data[field], "path": folder}
    return {**recipe, "data": data}


def check(data: Mapping[str, Any], workdir: Path) -> None:
    """Refuses to go on with other tokenizers than those of the newest checkpoint of a workdir.

    Raises:
      UserError: says how to get the old one back.
    """
    mine = _of_data(data)
    if not mine or not store.steps_in(workdir / "checkpoints"):
        return
    directory, step = warm_start.find(str(workdir), "--workdir")
    packed = store.read_metadata(directory, step)[0].get("tokenizers") or {}
    mend = f"Its own travels with it: vitax tokenizer export {workdir} NEW_FOLDER, and give that as its path."
    for field, one in packed.items():
        try:
            now = mine[field].fingerprint() if field in mine else None
        except UserError as error:
            raise UserError(f"{error}\n{workdir} was trained with it. {mend}") from error
        if lines := difference(one["fingerprint"], now, f"data.{field}"):
            raise UserError(
                f"{workdir} was trained with another tokenizer; the same ids would mean other text:\n  "
                + "\n  ".join(lines)
                + f"\n{mend}"
            )


def check_start(recipe: Any, directory: Path, step: int) -> None:
    """Refuses a warm start from a checkpoint of other tokens, unless its table of tokens is left out.

    Args:
      recipe: whose ``init_from`` names the checkpoint.
      directory: the folder of its steps.
      step: which.

    Raises:
      UserError: says how to mend it.
    """
    try:
        stored = store.read_metadata(directory, step)[0]
    except store.Damaged:
        return  # the warm start itself says so
    # Checkpoints from before there was the key have it somewhere in what decides their batches.
    data = stored["data"]
    before = stored.get("tokenizer") or data.get("tokenizer") or (data.get("source") or {}).get("tokenizer")
    if before is not None and recipe.data.size is None:
        lines = difference(before, recipe.data.build_tokenizer().fingerprint(), "data.tokenizer")
        _refuse_start(recipe, str(directory / str(step)), lines)


def check_weights(recipe: Any, data: Mapping[str, Any]) -> None:
    """``check_start`` for a weight file.

    Args:
      recipe: whose ``init_from`` names the file.
      data: of the recipe in the file, or of that which its layout implies.

    Raises:
      UserError: says how to mend it.
    """
    theirs = kinds.build(data)
    if recipe.data.size is not None or theirs.size is not None:
        return
    own, before = recipe.data.build_tokenizer(), theirs.build_tokenizer()
    try:
        lines = difference(before.fingerprint(), own.fingerprint(), "data.tokenizer")
    except UserError:
        return  # none lies beside it: which tokens it knows cannot be told
    # One vocabulary is published in several forms, and which of them is read changes nothing.
    if lines and _meanings(before) != _meanings(own):
        _refuse_start(recipe, recipe.init_from.checkpoint, lines)


def _meanings(tokenizer: Any) -> list[bytes]:
    return [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]


def _refuse_start(recipe: Any, where: str, lines: list[str]) -> None:
    if lines and not any(re.search(pattern, "embedding") for pattern in recipe.init_from.reset):
        raise UserError(
            f"init_from.checkpoint: {where} was trained with another tokenizer; the same ids would "
            "mean other text:\n  " + "\n  ".join(lines) + "\nUse its own (vitax tokenizer export CHECKPOINT "
            "NEW_FOLDER writes it, and published ones lie beside their weights), or learn new ones: "
            "--config.init_from.reset=('embedding',)."
        )


def export(checkpoint: str, out: Path) -> list[dict[str, Any]]:
    """Writes the tokenizers of a checkpoint to a new folder.

    Args:
      checkpoint: ``DIR`` or ``DIR@STEP``.
      out: a folder that is not there yet; where there are several tokenizers, each gets one in it.

    Returns:
      Rows ``field, folder, files, fingerprint``.

    Raises:
      UserError: none is carried, or the folder is there.
    """
    directory, step = warm_start.find(checkpoint, "tokenizer export")
    try:
        packed = store.read_metadata(directory, step)[0].get("tokenizers") or {}
    except store.Damaged as problem:
        raise UserError(f"{directory / str(step)} is damaged: {problem}. Name another: DIR@STEP.") from problem
    if not packed:
        raise UserError(f"tokenizer export {checkpoint}: it carries none: its tokens need no file.")
    if out.exists():
        raise UserError(f"tokenizer export: {out} is there already. Give the name of a new folder.")
    rows = []
    for field, one in packed.items():
        folder = out if len(packed) == 1 else out / field
        folder.mkdir(parents=True)
        _write(one, folder)
        about = {"files": sorted(one["files"]), "fingerprint": one["fingerprint"]}
        rows.append({"field": f"data.{field}", "folder": str(folder), **about})
    return rows


def export_lines(rows: list[dict[str, Any]]) -> list[str]:
    """A line a tokenizer."""
    return [f"{row['folder']}: {', '.join(row['files'])} of {row['field']}, {row['fingerprint']}" for row in rows]


def _compress(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode()


def _write(one: Mapping[str, Any], folder: Path) -> None:
    for name, text in one["files"].items():
        (folder / name).write_bytes(zlib.decompress(base64.b64decode(text)))
