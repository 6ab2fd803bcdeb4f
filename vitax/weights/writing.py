"""``vitax convert``: a checkpoint or a published file in the names of another program, and what goes beside it."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import vitax
from vitax import carried_tokenizers
from vitax.checkpoint import digest, weight_writer
from vitax.core.errors import UserError, pick
from vitax.weights import reading, writing_bit, writing_efficientnet, writing_text, writing_vit
from vitax.weights.images import preparation
from vitax.weights.reading import Published
from vitax.weights.writing_parts import Written
from vitax.weights.writing_text import left_out_tokenizer

HF_FILE = "model.safetensors"
# Family -> target -> what writes it. Every family can be written for vitax.
WRITERS: dict[str, dict[str, Callable[[Published], Written]]] = {
    "vit": {"npz": writing_vit.npz, "timm": writing_vit.to_timm, "hf": writing_vit.hugging_face},
    "bit": {"npz": writing_bit.npz, "timm": writing_bit.to_timm, "hf": writing_bit.hugging_face},
    "efficientnet": {"timm": writing_efficientnet.to_timm, "hf": writing_efficientnet.hugging_face},
    "gpt": {"hf": writing_text.gpt},
    "bert": {"hf": writing_text.bert},
}
TARGETS = ("vitax", "npz", "timm", "hf")


def run(source: str, target: Path, to: str, image_size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Converts one checkpoint.

    Args:
      source: a workdir (``DIR`` or ``DIR@STEP``; averaged parameters where there are any) or a weight file.
      target: ``*.npz`` or ``*.safetensors`` for ``vitax``, ``*.npz`` for ``npz``; a folder for ``timm``
        and ``hf``, which gets ``model.safetensors`` and ``config.json``.
      to: a name of ``TARGETS``.
      image_size: as for ``reading.load``.

    Returns:
      ``source, layout, to, files, arrays, parameters, lines``.

    Raises:
      UserError: an unknown target, or a model that the target cannot hold.
    """
    pick(dict.fromkeys(TARGETS), to, "--to")
    if to in ("timm", "hf"):
        if target.suffix in (".npz", ".safetensors"):
            raise UserError(f"{target}: --to {to} writes a folder with {HF_FILE} and config.json; name a folder.")
        out = target / HF_FILE
    elif to == "npz" and target.suffix != ".npz":
        raise UserError(f"{target}: --to npz writes one file; expected a name that ends in .npz.")
    else:
        out = target
    weight_writer.check(out)
    found = reading.read(source, "convert", image_size).whole()
    written = _writer(found, to)(found)
    shapes = weight_writer.write(out, written.arrays.items(), written.metadata)
    paths = [out]
    for name, content in written.beside.items():
        paths.append(out.parent / name)
        text = content if isinstance(content, bytes) else (json.dumps(content, indent=1) + "\n").encode()
        paths[-1].write_bytes(text)
    back = reading.load(str(out), found.image_size).whole()  # what was written can be read
    return {
        "source": source,
        "layout": found.title,
        "to": to,
        "files": [str(p) for p in paths],
        "arrays": len(shapes),
        "parameters": sum(math.prod(shape) for shape in shapes),
        "lines": [*found.lines, *written.lines, *(_left_out(found, back) if to == "npz" else ())],
    }


def _left_out(found: Published, back: Published) -> list[str]:
    """What an npz of other programs has no place for, as lines."""
    lines = []
    if found.class_names:
        lines.append("class names: left out, since an npz has no place for them; --to vitax and --to timm keep them")
    here, there = (preparation(x.recipe, x.image_size) for x in (found, back) if x.image_size is not None)
    if here != there:
        lines.append(f"images: here {here}; an npz cannot say it, and its reader takes: {there}")
    return lines


def _writer(found: Published, to: str) -> Callable[[Published], Written]:
    kind = found.recipe["model"]["kind"]
    family = reading.FAMILY_OF.get(kind, kind)
    writers = {"vitax": _vitax, **WRITERS.get(family, {})}
    if to not in writers:
        raise UserError(f"--to {to}: no such files of {family}s were ever published; there are {', '.join(writers)}.")
    return writers[to]


def lines(row: Mapping[str, Any]) -> list[str]:
    """For a person."""
    return [*row["lines"], f"{', '.join(row['files'])}: {row['arrays']} arrays, {row['parameters']:,} parameters"]


def _vitax(found: Published) -> Written:
    lines: tuple[str, ...] = ()
    try:
        packed = carried_tokenizers.pack(found.recipe["data"])
    except UserError as error:
        packed, lines = None, (left_out_tokenizer(error),)
    recipe = json.dumps(found.recipe)
    held = {name: np.asarray(x) for name, x in found.params.items()}
    about = {
        "format": "vitax",
        "step": "0",
        "weights": found.title,
        "name": "",
        "recipe": recipe,
        "class_names": json.dumps(found.class_names),
        "tokenizers": json.dumps(packed),
        "versions": json.dumps({"vitax": vitax.__version__}),
        "digest": digest.combine(digest.manifest(held)),
    }
    return Written(held, metadata=about, lines=lines)
