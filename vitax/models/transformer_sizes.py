"""Published sizes of the encoder-decoder Transformer, as data. Imports neither JAX nor Flax."""

from typing import Any, NamedTuple

from vitax.core.errors import pick


class Size(NamedTuple):
    """Shape and recipe of a Transformer.

    Attributes:
      width: D.
      depth: blocks of each stack.
      mlp_dim: hidden width of the MLPs.
      num_heads: N.
      dropout: residual dropout, for English to German.
      steps: of training.
      averaged: checkpoints that are averaged at the end.
      bleu: on newstest2014, English to German (table 2).
      train_flops: as printed (table 2).
    """

    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    dropout: float
    steps: int
    averaged: int
    bleu: float
    train_flops: float


# Vaswani et al., arXiv:1706.03762, tables 2 and 3, and section 6.1.
SIZES: dict[str, Size] = {
    "base": Size(512, 6, 2048, 8, 0.1, 100_000, 5, 27.3, 3.3e18),
    "big": Size(1024, 6, 4096, 16, 0.3, 300_000, 20, 28.4, 2.3e19),
}
# Tokens of both languages together ("about 37000", section 5.1).
VOCAB_SIZE = 37_000
CONTEXT = 256


def fields(name: str) -> dict[str, Any]:
    """Constructor fields of a published size.

    Raises:
      UserError: an unknown name.
    """
    size = pick(SIZES, name, "Transformer size")
    return {
        "width": size.width,
        "depth": size.depth,
        "mlp_dim": size.mlp_dim,
        "num_heads": size.num_heads,
        "vocab_size": VOCAB_SIZE,
        "context": CONTEXT,
    }
