"""BERT by the names in Hugging Face's files.

Reference: files of transformers 5.23.0, model ``bert``. Kernels are stored outputs
first; the output layer of masked tokens is the table of tokens, and has no array of its
own but in old files.
"""

from vitax.checkpoint.convert import Rule
from vitax.checkpoint.names.timm import HEADS_OUT, dense, heads, norm

_OURS = "encoder/block_{i:02}"
# Heads, wherever the encoder's names begin.
_HEADS = (
    *dense("mlm/dense", "cls.predictions.transform.dense"),
    *norm("mlm/norm", "cls.predictions.transform.LayerNorm"),
    Rule("mlm/bias", "cls.predictions.bias"),
    *dense("next_sentence", "cls.seq_relationship"),
)


def table(prefix: str, head: str = "classifier") -> tuple[Rule, ...]:
    """The rules.

    Args:
      prefix: of the encoder's names: ``bert.`` or nothing.
      head: name of the layer that is ``head`` here: ``classifier`` or ``qa_outputs``.
    """
    theirs, parts = f"{prefix}encoder.layer.{{i}}", ("query", "key", "value")
    attention = [rule for p in parts for rule in heads(f"{_OURS}/attention/{p}", f"{theirs}.attention.self.{p}")]
    words = {"token": "word", "position": "position", "type": "token_type"}
    return (
        *(Rule(f"embedding/{o}", f"{prefix}embeddings.{t}_embeddings.weight") for o, t in words.items()),
        *norm("embedding_norm", f"{prefix}embeddings.LayerNorm"),
        *attention,
        *dense(f"{_OURS}/attention/out", f"{theirs}.attention.output.dense", HEADS_OUT),
        *norm(f"{_OURS}/norm_1", f"{theirs}.attention.output.LayerNorm"),
        *dense(f"{_OURS}/mlp/in", f"{theirs}.intermediate.dense"),
        *dense(f"{_OURS}/mlp/out", f"{theirs}.output.dense"),
        *norm(f"{_OURS}/norm_2", f"{theirs}.output.LayerNorm"),
        *dense("pooler", f"{prefix}pooler.dense"),
        *_HEADS,
        *dense("head", head),
    )
