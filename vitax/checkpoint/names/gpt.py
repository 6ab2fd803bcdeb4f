"""GPT-1 and GPT-2 by the names in Hugging Face's files.

Reference: files of transformers 5.23.0, models ``openai-gpt`` and ``gpt2``. Both store
kernels inputs first, and the head is the embedding: no array of its own.
"""

from vitax.checkpoint.convert import Rule, divide_axis, split
from vitax.checkpoint.names.timm import norm

_HEADS_IN = divide_axis(1, "num_heads")
_HEADS = divide_axis(0, "num_heads")


def _table(words: str, positions: str, final: tuple[Rule, ...]) -> tuple[Rule, ...]:
    ours, theirs = "encoder/block_{i:02}", "transformer.h.{i}"
    parts = tuple(f"{ours}/attention/{p}" for p in ("query", "key", "value"))
    return (
        Rule("embedding", f"transformer.{words}.weight"),
        Rule("pos_embedding", f"transformer.{positions}.weight"),
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
        *final,
    )


GPT1 = _table("tokens_embed", "positions_embed", ())
GPT2 = _table("wte", "wpe", tuple(norm("encoder/norm", "transformer.ln_f")))
