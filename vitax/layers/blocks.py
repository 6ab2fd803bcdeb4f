"""The transformer block and its MLP."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitax.core.axes import constrain
from vitax.layers.attention import Attention
from vitax.layers.cache import KVCache
from vitax.layers.dropout import drop_branch, dropout, fold
from vitax.layers.inits import VIT_INITS, Inits
from vitax.layers.kernels import KernelName
from vitax.layers.linear import Linear
from vitax.layers.masks import Mask
from vitax.layers.named import named
from vitax.layers.norm import LayerNorm

Array = jax.Array

# Sites within the keys of one block.
ATTENTION, AFTER_ATTENTION, HIDDEN, AFTER_MLP, BRANCH_1, BRANCH_2, CROSS, AFTER_CROSS = range(8)


class Mlp(nn.Module):
    """Two dense layers with a nonlinearity between; parameters ``in``, ``out``.

    Attributes:
      mlp_dim: hidden width.
      gelu: ``tanh`` (approximation, the original's numerics) or ``erf`` (exact).
      dropout: rate after the nonlinearity.
      dtype: compute dtype.
      inits: how kernels and biases start.
      activation: ``gelu``, or ``relu`` (Vaswani et al., arXiv:1706.03762, equation 2).
    """

    mlp_dim: int
    gelu: Literal["tanh", "erf"] = "tanh"
    dropout: float = 0.0
    dtype: Any = "float32"
    inits: Inits = VIT_INITS
    activation: Literal["gelu", "relu"] = "gelu"

    @nn.compact
    def __call__(self, x: Array, *, rng: Array | None = None) -> Array:
        """Maps [B, T, D] to [B, T, D]; ``rng`` as in ``Block``."""
        width, inits = x.shape[-1], self.inits
        x = Linear((self.mlp_dim,), ("embed", "mlp"), self.dtype, inits.kernel, inits.mlp_bias, name="in")(x)
        x = constrain(x, ("batch", "tokens", "mlp"))
        x = jax.nn.relu(x) if self.activation == "relu" else jax.nn.gelu(x, approximate=self.gelu == "tanh")
        x = dropout(x, self.dropout, rng, HIDDEN)
        return Linear((width,), ("mlp", "embed"), self.dtype, inits.residual, inits.mlp_bias, name="out")(x)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); or norm(x + attention(x)), then norm(x + mlp(x)).

    Parameters: ``norm_1``, ``attention``, ``norm_2``, ``mlp``, and where asked for
    ``layer_scale_1/2``, or ``cross_norm`` and ``cross_attention`` between the two branches.

    Attributes:
      num_heads: attention heads.
      mlp_dim: hidden width of the MLP.
      dropout: rate after attention, after GELU and after the MLP.
      hidden_dropout: rate after GELU where it is not ``dropout``.
      attention_dropout: rate on attention weights.
      layer_scale: start value of a learned scale on both branches; None = absent.
      gelu: as in ``Mlp``.
      norm_eps: epsilon of both norms.
      dtype: compute dtype, also of the residual stream.
      attention_kernel: ``kernel`` of ``Attention``.
      norm: ``pre``, before each branch, or ``post``, after each sum.
      inits: how kernels start.
      activation: as in ``Mlp``.
      cross: a decoder's block, which also attends to an encoder's output.

    Reference: ViT, arXiv:2010.11929, equations 2 and 3. LayerScale: arXiv:2103.17239.
      ``post`` and ``cross``: Vaswani et al., arXiv:1706.03762, section 3.1.
    """

    num_heads: int
    mlp_dim: int
    dropout: float = 0.0
    hidden_dropout: float | None = None
    attention_dropout: float = 0.0
    layer_scale: float | None = None
    gelu: Literal["tanh", "erf"] = "tanh"
    norm_eps: float = 1e-6
    dtype: Any = "float32"
    attention_kernel: KernelName = "xla"
    norm: Literal["pre", "post"] = "pre"
    inits: Inits = VIT_INITS
    activation: Literal["gelu", "relu"] = "gelu"
    cross: bool = False

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        mask: Array | Mask | None = None,
        rng: Array | None = None,
        keep: float | Array | None = None,
        return_weights: bool = False,
        cache: Any = None,
        slots: Array | None = None,
        memory: Array | None = None,
        memory_mask: Array | Mask | None = None,
    ) -> tuple[Array, Any]:
        """Runs the block.

        Args:
          x: [B, T, D].
          mask: as in ``Attention``.
          rng: typed keys [B], or None for no randomness.
          keep: probability that an example keeps each branch; None keeps all.
          return_weights: also return the attention weights.
          cache: as in ``Attention``; of a ``cross`` block a pair, its own and that of the memory.
          slots: as in ``Attention``.
          memory: [B, S, D], an encoder's output, for a ``cross`` block; with a cache, given
            once, which fills the memory's.
          memory_mask: as ``mask``, to [B, N, T, S].

        Returns:
          [B, T, D], and beside it attention weights [B, N, T, T] or None; with a cache,
          the new cache. Of a ``cross`` block a pair of either.
        """
        # On the carry of a scan this constraint decides: without it the compiler may
        # shard the width and keep the whole batch on every device.
        x = constrain(x, ("batch", "tokens", "embed"))
        pre = self.norm == "pre"
        norm_1, norm_2 = (LayerNorm(self.norm_eps, self.dtype, name=f"norm_{i}") for i in (1, 2))
        y = norm_1(x) if pre else x
        attention = Attention(
            self.num_heads, self.attention_dropout, self.dtype, self.attention_kernel, self.inits, name="attention"
        )
        keys = fold(rng, ATTENTION)
        own = cache[0] if self.cross and cache is not None else cache
        y, beside = attention(y, y, mask=mask, rng=keys, return_weights=return_weights, cache=own, slots=slots)
        y = dropout(y, self.dropout, rng, AFTER_ATTENTION)
        x = x + drop_branch(self._scaled(y, "layer_scale_1"), keep, rng, BRANCH_1)
        x = x if pre else norm_1(x)
        if self.cross:
            held = None if cache is None else cache[1]
            x, of_memory = self._attend_to_memory(x, memory, memory_mask, rng, return_weights, held)
            beside = (beside, of_memory)
        y = norm_2(x) if pre else x
        hidden_dropout = self.dropout if self.hidden_dropout is None else self.hidden_dropout
        y = Mlp(self.mlp_dim, self.gelu, hidden_dropout, self.dtype, self.inits, self.activation, name="mlp")(
            y, rng=rng
        )
        y = dropout(y, self.dropout, rng, AFTER_MLP)
        x = x + drop_branch(self._scaled(y, "layer_scale_2"), keep, rng, BRANCH_2)
        x = x if pre else norm_2(x)
        return constrain(x, ("batch", "tokens", "embed")), beside

    def _attend_to_memory(
        self,
        x: Array,
        memory: Array | None,
        mask: Array | Mask | None,
        rng: Array | None,
        return_weights: bool,
        cache: KVCache | None,
    ) -> tuple[Array, Any]:
        norm = LayerNorm(self.norm_eps, self.dtype, name="cross_norm")
        attention = Attention(
            self.num_heads,
            self.attention_dropout,
            self.dtype,
            self.attention_kernel,
            self.inits,
            name="cross_attention",
        )
        slots = None if memory is None else jnp.broadcast_to(jnp.arange(memory.shape[1]), memory.shape[:2])
        y, beside = attention(
            norm(x) if self.norm == "pre" else x,
            memory,
            mask=mask,
            rng=fold(rng, CROSS),
            return_weights=return_weights,
            cache=cache,
            slots=slots,
        )
        x = x + dropout(y, self.dropout, rng, AFTER_CROSS)
        return x if self.norm == "pre" else norm(x), beside

    def _scaled(self, y: Array, name: str) -> Array:
        if self.layer_scale is None:
            return y
        init = named(nn.initializers.constant(self.layer_scale), ("embed",))
        return y * self.param(name, init, (y.shape[-1],), jnp.float32).astype(self.dtype)
