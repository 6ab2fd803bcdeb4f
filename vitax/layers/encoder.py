"""A stack of blocks: unrolled or scanned, one layout of parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vitax.core.errors import pick
from vitax.layers.blocks import Block
from vitax.layers.dropout import fold
from vitax.layers.masks import Mask
from vitax.layers.norm import LayerNorm
from vitax.layers.remat import REMAT_POLICIES, RematName

Array = jax.Array

# Block i draws from the keys folded with FIRST_BLOCK + i; smaller numbers are the model's own sites.
FIRST_BLOCK = 1


def _stack(*leaves: Array, dtype: Any) -> Array:
    # Matrices are cast before they are stacked, which halves the stack in bfloat16;
    # vectors (norms) stay float32, where their use wants them.
    return jnp.stack([leaf.astype(dtype) if leaf.ndim > 1 else leaf for leaf in leaves])


class Encoder(nn.Module):
    """Blocks and a final norm; parameters ``block_00/..., norm``.

    Parameters are one leaf a layer whichever way the stack runs: ``unroll=False``
    stacks them inside the computation and scans over the stack, so optimisers,
    masks and checkpoints see one layout.

    Attributes:
      depth: number of blocks.
      make_block: constructor of a block (all but ``name`` and ``parent`` bound).
      stochastic_depth: probability of dropping the branches of the last block;
        grows linearly from 0 at the first.
      norm_eps: epsilon of the final norm.
      remat: a name of ``REMAT_POLICIES``.
      unroll: a Python loop over the blocks (best schedule) instead of
        ``jax.lax.scan`` (compile time that does not grow with depth).
      dtype: compute dtype.
    """

    depth: int
    make_block: Callable[..., Block]
    stochastic_depth: float = 0.0
    norm_eps: float = 1e-6
    remat: RematName = "none"
    unroll: bool = True
    dtype: Any = "float32"

    def setup(self) -> None:
        self.norm = LayerNorm(self.norm_eps, self.dtype)
        self.blocks = [self.make_block(name=f"block_{i:02d}") for i in range(self.depth)]

    def normalise(self, x: Array) -> Array:
        """The final norm."""
        return self.norm(x)

    def __call__(
        self,
        x: Array,
        *,
        mask: Array | Mask | None = None,
        rng: Array | None = None,
        return_intermediates: bool = False,
        return_attention: bool = False,
        memory: Array | None = None,
        memory_mask: Array | Mask | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Runs the blocks, without the final norm.

        Args:
          x: [B, T, D].
          mask: as in ``Attention``.
          rng: typed keys [B], or None for no randomness.
          return_intermediates: also return the output of each block.
          return_attention: also return the attention weights of each block.
          memory: as in ``Block``.
          memory_mask: as in ``Block``.

        Returns:
          [B, T, D] and ``block_00``... [B, T, D], ``attention_00``... [B, N, T, T], of a
          decoder also ``cross_attention_00``... [B, N, T, S].
        """
        # Empty for an encoder, whose blocks need not know of a memory.
        beside: dict[str, Any] = {} if memory is None else {"memory": memory, "memory_mask": memory_mask}
        if self.is_initializing():
            # Creates the parameters, whichever way the stack will run.
            for block in self.blocks:
                x, _ = block(x, **beside)
            return x, {}
        params = nn.meta.unbox(self.variables["params"])
        layers = [params[f"block_{i:02d}"] for i in range(self.depth)]
        # Unbound: pure in its parameters, so that one body serves the loop, the scan and the remat.
        block = self.make_block(parent=None)
        keep = self.keep_probabilities()

        def body(x: Array, layer: tuple[Any, Any, Any]) -> tuple[Array, Any]:
            params, index, keep = layer
            keys = fold(rng, FIRST_BLOCK + index)
            options = {"mask": mask, "rng": keys, "keep": keep, "return_weights": return_attention} | beside
            x, weights = block.apply({"params": params}, x, **options)
            return x, (x if return_intermediates else None, weights)

        policy = pick(REMAT_POLICIES, self.remat, "model.remat")
        if policy is not None:
            # Unrolled, the barriers against common subexpressions are what keeps the
            # remat; inside a scan nothing can merge across the loop and they only cost.
            body = jax.checkpoint(body, policy=policy, prevent_cse=self.unroll)
        if self.unroll:
            outputs = []
            for i, layer in enumerate(layers):
                with jax.named_scope(f"block_{i:02d}"):
                    x, output = body(x, (layer, i, None if keep is None else keep[i]))
                outputs.append(output)
        else:
            stacked = jax.tree.map(lambda *leaves: _stack(*leaves, dtype=self.dtype), *layers)
            x, ys = jax.lax.scan(body, x, (stacked, jnp.arange(self.depth), keep))
            outputs = [jax.tree.map(lambda y, i=i: y[i], ys) for i in range(self.depth)]
        intermediates: dict[str, Array] = {}
        for i, (block_output, weights) in enumerate(outputs):
            if return_intermediates:
                intermediates[f"block_{i:02d}"] = block_output
            if return_attention and memory is not None:
                intermediates[f"attention_{i:02d}"], intermediates[f"cross_attention_{i:02d}"] = weights
            elif return_attention:
                intermediates[f"attention_{i:02d}"] = weights
        return x, intermediates

    def decode(
        self, x: Array, caches: Sequence[Any], *, mask: Array, slots: Array, **memory: Any
    ) -> tuple[Array, tuple[Any, ...]]:
        """Runs the blocks on the next tokens, without the final norm; unrolled, since a scan would copy the caches.

        Args:
          x: [B, T, D].
          caches: one a block, as its ``cache``.
          mask: bool, broadcastable to [B, N, T, slots of the caches].
          slots: int32 [B, T], where the tokens belong.
          **memory: ``memory`` and ``memory_mask`` of ``Block``.

        Returns:
          [B, T, D] and the new caches.
        """
        written = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block(x, mask=mask, cache=cache, slots=slots, **memory)
            written.append(cache)
        return x, tuple(written)

    def keep_probabilities(self) -> np.ndarray | None:
        """float32 [depth]: 1 - stochastic_depth * i / (depth - 1), or None for all 1."""
        if not self.stochastic_depth:
            return None
        # One float32 table for both ways of running, so that both draw the same masks.
        return (1.0 - self.stochastic_depth * np.linspace(0.0, 1.0, self.depth)).astype(np.float32)
