"""Named policies of rematerialisation: what the forward pass keeps for the backward pass."""

from typing import Any, Literal

import jax

RematName = Literal["none", "full", "dots", "dots_with_no_batch_dims"]


def _convolutions(primitive: Any, *_: Any, **__: Any) -> bool:
    """Keeps results of convolutions, which are the matrix products of residual networks."""
    return primitive.name == "conv_general_dilated"


def _and_convolutions(policy: Any) -> Any:
    return jax.checkpoint_policies.save_from_both_policies(policy, _convolutions)


# name -> policy of jax.checkpoint around one block; None = no checkpoint.
REMAT_POLICIES: dict[str, Any] = {
    # Everything that the backward pass reads: fastest, most memory.
    "none": None,
    # The input of each block alone: one more forward pass, least memory.
    "full": jax.checkpoint_policies.nothing_saveable,
    # Results of all matrix products, convolutions and attention scores included; norms,
    # GELU and softmax are computed again.
    "dots": _and_convolutions(jax.checkpoint_policies.dots_saveable),
    # Results of the projections, the MLP and convolutions; attention scores [B, N, T, T]
    # and their products are computed again.
    "dots_with_no_batch_dims": _and_convolutions(jax.checkpoint_policies.dots_with_no_batch_dims_saveable),
}
