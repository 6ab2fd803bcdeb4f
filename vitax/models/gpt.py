"""GPT: a causal language model."""

import functools
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitax.core.axes import constrain
from vitax.core.bounds import DropRate, Positive
from vitax.core.errors import UserError
from vitax.core.types import ModelOutput, PyTree
from vitax.layers.blocks import Block
from vitax.layers.cache import KVCache
from vitax.layers.dropout import dropout
from vitax.layers.encoder import Encoder
from vitax.layers.fused_attention import mask_of
from vitax.layers.inits import gpt_inits
from vitax.layers.kernels import MaskedKernelName
from vitax.layers.masks import Mask, positions_in_segments
from vitax.layers.named import named
from vitax.layers.remat import RematName
from vitax.layers.vocabulary import only, vocabulary_logits
from vitax.models.sequences import check_heads, check_tokens

Array = jax.Array

# Site of the dropout after the embeddings; the blocks use 1 and up.
EMBEDDINGS = 0


class GPT(nn.Module):
    """Decoder-only transformer with learned positions and an output tied to the embedding.

    Parameters (float32, one leaf a layer): ``embedding`` (V, D), ``pos_embedding``
    (context, D), ``encoder/block_00/...`` as in ``ViT``, ``encoder/norm`` (``pre`` only).

    Attributes:
      width: D, width of the residual stream.
      depth: number of blocks.
      mlp_dim: hidden width of the MLPs.
      num_heads: attention heads; must divide the width.
      vocab_size: V, number of token ids.
      context: longest sequence; the number of learned positions.
      norm: ``pre`` with a final norm (GPT-2), or ``post`` without (GPT-1).
      dropout: after the embeddings and after each branch.
      attention_dropout: on the attention weights.
      attention_kernel: ``xla``, ``splash`` or ``cudnn``, as in ``layers.attention.Attention``; the same
        parameters, and results within rounding. No ``attention_dropout`` with the last two.
      scaled_residual: start layers that write into the residual stream smaller, by the
        root of their number (GPT-2).
      norm_eps: epsilon of all layer norms.
      dtype: compute dtype, also of the residual stream; parameters and logits are
        float32 in any case.
      remat: what the forward pass keeps, a name of ``layers.remat.REMAT_POLICIES``.
      unroll: a Python loop over the blocks instead of a scan; no change to
        parameters or results.

    Reference: Radford et al., "Improving Language Understanding by Generative
    Pre-Training" (2018); "Language Models are Unsupervised Multitask Learners" (2019).
    GPT-3, arXiv:2005.14165, has GPT-2's form with sparse attention in every other
    layer; here all layers are dense.
    """

    width: Positive
    depth: Positive
    mlp_dim: Positive
    num_heads: Positive
    vocab_size: Positive
    context: Positive
    norm: Literal["pre", "post"] = "pre"
    dropout: DropRate = 0.0
    attention_dropout: DropRate = 0.0
    attention_kernel: MaskedKernelName = "xla"
    scaled_residual: bool = True
    norm_eps: float = 1e-5
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: RematName = "none"
    unroll: bool = True

    def setup(self) -> None:
        check_heads(self.width, self.num_heads)
        if self.norm not in ("pre", "post"):
            raise UserError(f'model.norm: expected one of pre, post, got "{self.norm}".')
        make_block = functools.partial(
            Block,
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            dropout=self.dropout,
            hidden_dropout=0.0,
            attention_dropout=self.attention_dropout,
            attention_kernel=self.attention_kernel,
            norm_eps=self.norm_eps,
            dtype=self.dtype,
            norm=self.norm,
            inits=gpt_inits(self.depth, scaled_residual=self.scaled_residual),
        )
        normal = nn.initializers.normal
        shape = (self.vocab_size, self.width)
        self.embedding = self.param("embedding", named(normal(0.02), ("vocab", "embed")), shape, jnp.float32)
        # 0.01 in GPT-2's code.
        init = named(normal(0.01), ("tokens", "embed"))
        self.pos_embedding = self.param("pos_embedding", init, (self.context, self.width), jnp.float32)
        self.encoder = Encoder(
            self.depth,
            make_block,
            norm_eps=self.norm_eps,
            remat=self.remat,
            unroll=self.unroll,
            dtype=self.dtype,
        )

    def __call__(
        self,
        tokens: Array,
        *,
        segment_ids: Array | None = None,
        train: bool = False,
        rng: Array | None = None,
        return_intermediates: bool = False,
        return_attention: bool = False,
        return_logits: bool = True,
    ) -> ModelOutput:
        """Predicts the token after each.

        Args:
          tokens: int32 [B, T], T at most ``context``, ids below ``vocab_size``.
          segment_ids: int32 [B, T], runs of equal ids are documents: tokens see those of
            their own only, and positions start again in each. None: each row is one.
          train: whether dropout acts.
          rng: typed keys [B], one an example; None means no randomness.
          return_intermediates: also return ``embedding`` and ``block_00``..., [B, T, D].
          return_attention: also return ``attention_00``..., float32 [B, N, T, T].
          return_logits: False leaves the logits to whoever needs them (``output_table``).

        Returns:
          logits float32 [B, T, V] or None, features [B, T, D] that make them, intermediates by name.

        Raises:
          UserError: a sequence longer than ``context``, or tokens that are not [B, T].
        """
        check_tokens(tokens.shape, self.context)
        rng = rng if train else None
        index = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
        mask, positions = Mask.causal(), index
        if segment_ids is not None:
            mask, positions = mask & Mask.segments(segment_ids), positions_in_segments(segment_ids)
        x = constrain(dropout(self._embed(tokens, positions), self.dropout, rng, EMBEDDINGS), _STREAM)
        intermediates = {"embedding": x} if return_intermediates else {}
        x, of_blocks = self.encoder(
            x,
            mask=mask_of(self.attention_kernel, mask, index, index),
            rng=rng,
            return_intermediates=return_intermediates,
            return_attention=return_attention,
        )
        x = self._normalised(x)
        logits = vocabulary_logits(x, self.embedding) if return_logits else None
        return ModelOutput(logits=logits, features=x, intermediates=intermediates | of_blocks)

    def output_table(self, variables: PyTree) -> Array:
        """float32 [V, D] of the variables: what ``features`` are multiplied by to give logits."""
        return variables["params"]["embedding"]

    def num_tokens(self, size: object = None) -> int:
        """The longest sequence, whatever ``size``."""
        return self.context

    def empty_cache(self, batch_size: int, slots: int) -> tuple[KVCache, ...]:
        """Caches, one a block, for sequences of up to ``slots`` tokens."""
        head_dim = self.width // self.num_heads
        return tuple(KVCache.zeros(batch_size, slots, self.num_heads, head_dim, self.dtype) for _ in range(self.depth))

    def decode(
        self, tokens: Array, positions: Array, cache: Sequence[KVCache], *, last: Array | None = None
    ) -> ModelOutput:
        """The next tokens of sequences whose earlier tokens are in the cache.

        Args:
          tokens: int32 [B, T].
          positions: int32 [B, T], where each stands in its sequence; below ``context``.
            Padding behind a prompt may be written: later tokens overwrite it.
          cache: of ``empty_cache`` or of the last call.
          last: int32 [B], of the T tokens the one whose logits are wanted; None: of all.

        Returns:
          logits float32 [B, T, V], or [B, 1, V] with ``last``, features [B, T, D] or [B, 1, D],
          and the new cache.
        """
        slots = jnp.arange(cache[0].num_slots, dtype=jnp.int32)[None]
        mask = Mask.causal().dense(positions, slots)
        assert mask is not None
        x, cache = self.encoder.decode(self._embed(tokens, positions), cache, mask=mask, slots=positions)
        x = self._normalised(only(x, last))
        return ModelOutput(logits=vocabulary_logits(x, self.embedding), features=x, cache=cache)

    def _embed(self, tokens: Array, positions: Array) -> Array:
        x = self.embedding.astype(self.dtype)[tokens] + self.pos_embedding.astype(self.dtype)[positions]
        return constrain(x, _STREAM)

    def _normalised(self, x: Array) -> Array:
        return self.encoder.normalise(x) if self.norm == "pre" else x


_STREAM = ("batch", "tokens", "embed")
