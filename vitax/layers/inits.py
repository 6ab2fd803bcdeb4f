"""How the kernels of a transformer block start."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn

Init = Callable[..., Any]


class Inits(NamedTuple):
    """Initialisers of a block.

    Attributes:
      kernel: of query, key, value and of the MLP's first layer.
      residual: of the layers that write into the residual stream.
      mlp_bias: of both biases of the MLP.
    """

    kernel: Init
    residual: Init
    mlp_bias: Init


# ViT, arXiv:2010.11929, as in the paper's code.
VIT_INITS = Inits(nn.initializers.xavier_uniform(), nn.initializers.xavier_uniform(), nn.initializers.normal(1e-6))


def gpt_inits(depth: int, scale: float = 0.02, scaled_residual: bool = True) -> Inits:
    """Normal kernels and zero biases.

    Args:
      depth: blocks; each writes into the residual stream twice.
      scale: standard deviation.
      scaled_residual: divide that of the writing layers by the root of their number.

    Reference: GPT-2 ("Language Models are Unsupervised Multitask Learners", 2019), section 2.3.
    """
    residual = scale * (2 * depth) ** -0.5 if scaled_residual else scale
    normal = nn.initializers.normal
    return Inits(normal(scale), normal(residual), nn.initializers.zeros_init())


def bert_inits(scale: float = 0.02) -> Inits:
    """Normal kernels, cut at two standard deviations, and zero biases.

    Args:
      scale: standard deviation before the cut.

    Reference: BERT, arXiv:1810.04805, as in the paper's code.
    """
    normal = nn.initializers.truncated_normal(scale)
    return Inits(normal, normal, nn.initializers.zeros_init())


# Vaswani et al., arXiv:1706.03762, as in the authors' code.
TRANSFORMER_INITS = Inits(
    nn.initializers.xavier_uniform(), nn.initializers.xavier_uniform(), nn.initializers.zeros_init()
)
