"""Weight files of GPT and BERT: constructor fields from shapes, the tokenizer beside the file."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vitax.checkpoint.files import WeightFile
from vitax.checkpoint.names import bert
from vitax.checkpoint.names.layout import Constants, Layout
from vitax.construct import construct
from vitax.core.errors import UserError
from vitax.data.tokenizers import TOKENIZERS, bpe, files, wordpiece
from vitax.models import bert_sizes, gpt_sizes
from vitax.weights.family import Family, Shaped, Size

Arrays = Mapping[str, np.ndarray]
_HEAD_DIM = 64
_BLOCK = re.compile(r"\b(?:h|layer)\.(\d+)\.")
# Kind of tokenizer -> names of files beside the weights that make one.
_TOKENIZERS = {
    "bpe": bpe.LAYOUTS,
    "wordpiece": ((files.TOKENIZER_JSON,), (wordpiece.VOCAB,)),
}

# Head -> kind of source, kind of objective and other fields of ``data``.
_TASKS: dict[str | None, tuple[str, str, dict[str, Any]]] = {
    None: ("text", "language_model", {}),
    "pretraining": ("documents", "masked_language_model", {}),
    "mlm": ("documents", "masked_language_model", {"next_sentence": False}),
    "none": ("documents", "masked_language_model", {}),
    "classification": ("text_table", "text_classification", {}),
    "span": ("squad", "span", {}),
}


def _sizes_like(table: Mapping[str, Any]) -> Callable[[Layout, WeightFile, Constants], Any]:
    """``Family.sizes`` where published sizes are those of a table."""

    def sizes(layout: Layout, file: WeightFile, constants: Constants) -> tuple[dict[str, int], list[str]]:
        if "num_heads" in constants.model:
            return {"num_heads": constants.model["num_heads"]}, []
        width = int(file.arrays[layout.required[0]].shape[-1])  # of the table of tokens
        depth = len({m[1] for name in file.arrays if (m := _BLOCK.search(name))})
        known = {s.num_heads for s in table.values() if (s.width, s.depth) == (width, depth)}
        where = "no config.json beside the file says it"
        if len(known) == 1:
            return {"num_heads": known.pop()}, [f"num_heads: that of the published size of width {width}: {where}"]
        if width % _HEAD_DIM:
            raise UserError(
                f"{file.path}: the number of heads is not in the file, and its width {width} is no multiple of "
                f"{_HEAD_DIM}; put its config.json beside it."
            )
        line = f"num_heads: {width // _HEAD_DIM}, taking heads to be {_HEAD_DIM} wide: {where}"
        return {"num_heads": width // _HEAD_DIM}, [line]

    return sizes


def _common(layout: Layout, arrays: Arrays, words: str, positions: str) -> dict[str, Any]:
    first = ("attention/query/kernel", "mlp/in/kernel")
    needed = (words, positions, *(f"encoder/block_00/{name}" for name in first))
    for name in needed:
        if name not in arrays:
            raise UserError(f"{layout.title}: {name} is missing from the file.")
    table, places, query, mlp = (arrays[name] for name in needed)
    return {
        "width": table.shape[1],
        "depth": len({name.split("/")[1] for name in arrays if name.startswith("encoder/block_")}),
        "mlp_dim": mlp.shape[1],
        "num_heads": query.shape[1],
        "vocab_size": table.shape[0],
        "context": places.shape[0],
    }


def gpt(layout: Layout, constants: Constants, arrays: Arrays, hint: Size | None) -> Shaped:
    """A GPT-1 or GPT-2."""
    fields = {"kind": "gpt", **_common(layout, arrays, "embedding", "pos_embedding"), **constants.model}
    return Shaped(arrays, fields, None, 0)


def encoder(layout: Layout, constants: Constants, arrays: Arrays, hint: Size | None) -> Shaped:
    """A BERT with the head that the file has."""
    fields = {"kind": "bert", **_common(layout, arrays, "embedding/token", "embedding/position"), **constants.model}
    fields["num_types"] = arrays["embedding/type"].shape[0]
    fields["head"] = _head(layout, arrays)
    if fields["head"] == "classification":
        fields["num_classes"] = arrays["head/bias"].shape[0]
    # Its own programs leave the pooler in such files, where nothing reads it.
    idle = [n for n in arrays if n.startswith("pooler/")] if fields["head"] in ("mlm", "span") else []
    lines = (f"left out: pooler, which the head {fields['head']} does not read",) if idle else ()
    return Shaped({n: x for n, x in arrays.items() if n not in idle}, fields, None, 0, lines)


def _head(layout: Layout, arrays: Arrays) -> str:
    if "head/kernel" in arrays:
        return "span" if layout is bert.SPAN else "classification"
    if "mlm/bias" in arrays:
        return "pretraining" if "next_sentence/kernel" in arrays else "mlm"
    return "none"


def _recipe(tokenizer: str) -> Callable[[WeightFile, Constants, Shaped], tuple[dict[str, Any], str]]:
    """``Family.recipe`` with the tokenizer that lies beside the weights."""

    def recipe(file: WeightFile, constants: Constants, shaped: Shaped) -> tuple[dict[str, Any], str]:
        folder = file.path.parent
        beside = [names for names in _TOKENIZERS[tokenizer] if all((folder / n).is_file() for n in names)]
        spec: dict[str, Any] = {"kind": tokenizer, "path": str(folder.absolute())}
        if beside == [(wordpiece.VOCAB,)]:
            spec["lowercase"] = bool(file.tokenizer.get("do_lower_case", True))
        lacking = " or ".join(" with ".join(names) for names in _TOKENIZERS[tokenizer])
        line = f"text: tokenizer {' with '.join(beside[0])}" if beside else f"text: no tokenizer beside it ({lacking})"
        if beside and constants.model.get("norm") == "post":
            line = _of_gpt1(spec) or line
        source, objective, more = _TASKS[shaped.model.get("head")]
        more = {name: shaped.model[name] for name in ("num_classes",) if name in shaped.model} | more
        made = {
            "model": dict(shaped.model),
            "objective": {"kind": objective},
            "data": {
                "source": {"kind": source, "path": "."},
                **more,
                "num_examples": 1,
                "length": shaped.model["context"],
                "vocab_size": shaped.model["vocab_size"],
                "tokenizer": spec,
                "batch_size": 64,
            },
            "optimizer": {"kind": "sgd", "lr": 1e-3},
            "schedule": {"kind": "constant"},
            "duration": {"steps": 1},
        }
        return made, line

    return recipe


def _of_gpt1(spec: dict[str, Any]) -> str | None:
    """The line for a tokenizer that splits words as GPT-1's; None for one that is byte-level."""
    try:
        construct(TOKENIZERS, spec, "data.tokenizer").encode(b"")
    except UserError as error:
        return f"text: no tokenizer: {error}"
    return None


_ARCHITECTURE = ("width", "depth", "mlp_dim", "num_heads", "vocab_size", "context")
GPT = Family(
    shape=gpt,
    recipe=_recipe("bpe"),
    architecture=(*_ARCHITECTURE, "norm"),
    numerics=("norm_eps",),
    sizes=_sizes_like(gpt_sizes.SIZES),
)
BERT = Family(
    shape=encoder,
    recipe=_recipe("wordpiece"),
    architecture=(*_ARCHITECTURE, "num_types"),
    numerics=("norm_eps",),
    sizes=_sizes_like(bert_sizes.SIZES),
)
