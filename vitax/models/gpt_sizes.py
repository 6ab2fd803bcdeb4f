"""Published sizes of GPT-1, GPT-2 and GPT-3, as data. Imports neither JAX nor Flax."""

from typing import Any, NamedTuple

from vitax.core.errors import pick


class Size(NamedTuple):
    """Shape of a GPT.

    Attributes:
      width: D.
      depth: blocks.
      num_heads: N.
      vocab_size: V.
      context: longest sequence in tokens.
      batch_tokens: tokens a step in the paper.
      lr: peak learning rate in the paper; None where it is not printed.
      source: paper and table.
    """

    width: int
    depth: int
    num_heads: int
    vocab_size: int
    context: int
    batch_tokens: int
    lr: float | None
    source: str


GPT1 = "GPT, Radford et al. 2018, section 4.1"
GPT2 = "GPT-2, Radford et al. 2019, table 2"
GPT3 = "GPT-3, arXiv:2005.14165, table 2.1"

_V1, _V2 = 40_478, 50_257
_M = 1_000_000

SIZES: dict[str, Size] = {
    "GPT-1": Size(768, 12, 12, _V1, 512, 64 * 512, 2.5e-4, GPT1),
    "GPT-2-small": Size(768, 12, 12, _V2, 1024, 512 * 1024, None, GPT2),
    "GPT-2-medium": Size(1024, 24, 16, _V2, 1024, 512 * 1024, None, GPT2),
    "GPT-2-large": Size(1280, 36, 20, _V2, 1024, 512 * 1024, None, GPT2),
    "GPT-2-XL": Size(1600, 48, 25, _V2, 1024, 512 * 1024, None, GPT2),
    "GPT-3-125M": Size(768, 12, 12, _V2, 2048, _M // 2, 6e-4, GPT3),
    "GPT-3-350M": Size(1024, 24, 16, _V2, 2048, _M // 2, 3e-4, GPT3),
    "GPT-3-760M": Size(1536, 24, 16, _V2, 2048, _M // 2, 2.5e-4, GPT3),
    # Printed with 24 heads of 128, which do not make 2048: 16 do.
    "GPT-3-1.3B": Size(2048, 24, 16, _V2, 2048, _M, 2e-4, GPT3),
    "GPT-3-2.7B": Size(2560, 32, 32, _V2, 2048, _M, 1.6e-4, GPT3),
    "GPT-3-6.7B": Size(4096, 32, 32, _V2, 2048, 2 * _M, 1.2e-4, GPT3),
    # Printed with a width of 5140, which 40 heads of 128 do not make: 5120 is.
    "GPT-3-13B": Size(5120, 40, 40, _V2, 2048, 2 * _M, 1e-4, GPT3),
    "GPT-3-175B": Size(12288, 96, 96, _V2, 2048, 3_200_000, 0.6e-4, GPT3),
}


def fields(name: str) -> dict[str, Any]:
    """Constructor fields of a published size.

    Args:
      name: a name of ``SIZES``.

    Raises:
      UserError: an unknown name.
    """
    size = pick(SIZES, name, "GPT size")
    shape = {
        "width": size.width,
        "depth": size.depth,
        "mlp_dim": 4 * size.width,
        "num_heads": size.num_heads,
        "vocab_size": size.vocab_size,
        "context": size.context,
    }
    # GPT-1 normalises after each sum, and starts all kernels alike.
    return shape | ({"norm": "post", "scaled_residual": False} if name == "GPT-1" else {})
