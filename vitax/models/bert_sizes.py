"""Published sizes of BERT and MiniLM, as data. Imports neither JAX nor Flax."""

from typing import Any, NamedTuple

from vitax.core.errors import pick


class Size(NamedTuple):
    """Shape of a BERT.

    Attributes:
      width: D.
      depth: blocks.
      num_heads: N.
      head: what it was published with.
      source: paper and table.
    """

    width: int
    depth: int
    num_heads: int
    head: str
    source: str


# Of the uncased WordPiece vocabulary.
VOCAB_SIZE = 30_522
CONTEXT = 512

SIZES: dict[str, Size] = {
    "BERT-base": Size(768, 12, 12, "pretraining", "BERT, arXiv:1810.04805, section 3"),
    "BERT-large": Size(1024, 24, 16, "pretraining", "BERT, arXiv:1810.04805, section 3"),
    # Every other layer of the published twelve, as fine-tuned for sentence embeddings.
    "MiniLM-L6": Size(384, 6, 12, "none", "MiniLM, arXiv:2002.10957, section 4"),
}


def fields(name: str) -> dict[str, Any]:
    """Constructor fields of a published size, without dropout.

    Args:
      name: a name of ``SIZES``.

    Raises:
      UserError: an unknown name.
    """
    size = pick(SIZES, name, "BERT size")
    return {
        "width": size.width,
        "depth": size.depth,
        "mlp_dim": 4 * size.width,
        "num_heads": size.num_heads,
        "vocab_size": VOCAB_SIZE,
        "context": CONTEXT,
        "head": size.head,
    }
