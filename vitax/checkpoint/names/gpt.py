"""GPT-1 and GPT-2 by the names in Hugging Face's files.

Reference: files of transformers 5.23.0, models ``openai-gpt`` and ``gpt2``. Both store
kernels inputs first, and the head is the embedding: old files have it twice.
"""

from collections.abc import Callable
from typing import Any

from vitax.checkpoint.convert import Rule, divide_axis, split
from vitax.checkpoint.files import WeightFile
from vitax.checkpoint.names import language
from vitax.checkpoint.names.layout import Constants, Layout
from vitax.checkpoint.names.timm import norm

_HEADS_IN = divide_axis(1, "num_heads")
_HEADS = divide_axis(0, "num_heads")


def _table(words: str, positions: str, final: str | None, prefix: str) -> tuple[Rule, ...]:
    ours, theirs = "encoder/block_{i:02}", f"{prefix}h.{{i}}"
    parts = tuple(f"{ours}/attention/{p}" for p in ("query", "key", "value"))
    return (
        Rule("embedding", f"{prefix}{words}.weight"),
        Rule("pos_embedding", f"{prefix}{positions}.weight"),
        *norm(f"{ours}/norm_1", f"{theirs}.ln_1"),
        Rule(tuple(f"{p}/kernel" for p in parts), f"{theirs}.attn.c_attn.weight", split(3, 1).then(_HEADS_IN)),
        Rule(tuple(f"{p}/bias" for p in parts), f"{theirs}.attn.c_attn.bias", split(3).then(_HEADS)),
        Rule(f"{ours}/attention/out/kernel", f"{theirs}.attn.c_proj.weight", _HEADS),
        Rule(f"{ours}/attention/out/bias", f"{theirs}.attn.c_proj.bias"),
        *norm(f"{ours}/norm_2", f"{theirs}.ln_2"),
        Rule(f"{ours}/mlp/in/kernel", f"{theirs}.mlp.c_fc.weight"),
        Rule(f"{ours}/mlp/in/bias", f"{theirs}.mlp.c_fc.bias"),
        Rule(f"{ours}/mlp/out/kernel", f"{theirs}.mlp.c_proj.weight"),
        Rule(f"{ours}/mlp/out/bias", f"{theirs}.mlp.c_proj.bias"),
        *(norm("encoder/norm", f"{prefix}{final}") if final else ()),
    )


def gpt1_table(prefix: str = "transformer.") -> tuple[Rule, ...]:
    """The rules of GPT-1; files without a head may leave the prefix out."""
    return _table("tokens_embed", "positions_embed", None, prefix)


def gpt2_table(prefix: str = "transformer.") -> tuple[Rule, ...]:
    """The rules of GPT-2; its first files leave the prefix out."""
    return _table("wte", "wpe", "ln_f", prefix)


# Settings of ``config.json`` by model type -> the values that our GPT has.
_EXPECTED: dict[str, dict[str, Any]] = {
    # What is called gelu there is the tanh form.
    "openai-gpt": {"afn": ("gelu", "gelu_new")},
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
        "scale_attn_weights": True,
    },
}


def _constants(words: str, model_type: str) -> Callable[[WeightFile], Constants]:
    def constants(file: WeightFile) -> Constants:
        language.check(file, model_type, _EXPECTED[model_type], words)
        own = {"norm": "post", "scaled_residual": False} if model_type == "openai-gpt" else {}
        return language.constants(file, own, "n_head", "layer_norm_epsilon", 1e-5, "tanh GELU")

    return constants


_LEFT_OUT = {
    r"(^|\.)h\.\d+\.attn\.(masked_)?bias$": "the causal mask, which is made here",
    r"^lm_head\.weight$": "the table of tokens again",
}


def _layout(name: str, title: str, table: tuple[Rule, ...], words: str, model_type: str) -> Layout:
    prefix, _, stem = words.rpartition(".")
    prefix += "." * bool(prefix)
    return Layout(
        name=name,
        title=title,
        family="gpt",
        required=(f"{prefix}{stem}.weight", f"{prefix}h.{{i}}.attn.c_attn.weight"),
        table=table,
        constants=_constants(f"{words}.weight", model_type),
        left_out=_LEFT_OUT,
    )


def _both(prefix: str) -> tuple[Layout, Layout]:
    bare = "" if prefix else " (without a prefix)"
    one = gpt1_table(prefix), f"{prefix}tokens_embed", "openai-gpt"
    two = gpt2_table(prefix), f"{prefix}wte", "gpt2"
    return _layout("hf_gpt2", f"Hugging Face GPT-2{bare}", *two), _layout("hf_gpt1", f"Hugging Face GPT-1{bare}", *one)


GPT2, GPT1 = _both("transformer.")
LAYOUTS = (GPT2, GPT1, *_both(""))
