"""The encoder-decoder Transformer."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from vitax.core.axes import constrain
from vitax.core.bounds import DropRate, Positive
from vitax.core.errors import UserError
from vitax.core.types import ModelOutput, PyTree
from vitax.layers.blocks import Block
from vitax.layers.cache import KVCache
from vitax.layers.dropout import dropout, fold
from vitax.layers.encoder import Encoder
from vitax.layers.fused_attention import mask_of
from vitax.layers.inits import TRANSFORMER_INITS
from vitax.layers.kernels import MaskedKernelName
from vitax.layers.masks import Mask, positions_in_segments
from vitax.layers.named import named
from vitax.layers.remat import RematName
from vitax.layers.vocabulary import only, vocabulary_logits
from vitax.models.sequences import check_heads, check_tokens

Array = jax.Array

# What the keys of an example are folded with: one stream a stack, and one for the embeddings.
EMBEDDINGS, ENCODER, DECODER = range(3)


@flax.struct.dataclass
class TransformerCache:
    """What decoding has seen.

    Attributes:
      blocks: one pair a block: keys and values of the target, and of the memory.
      source_valid: bool [B, S], the source tokens that are no padding.
    """

    blocks: tuple[tuple[KVCache, KVCache], ...]
    source_valid: Array

    def map_written(self, fn: Callable[[Array], Array]) -> "TransformerCache":
        """The cache with ``fn`` of each array that decoding writes; what is of the source stays."""
        blocks = tuple((jax.tree.map(fn, own), memory) for own, memory in self.blocks)
        return TransformerCache(blocks, self.source_valid)


def sinusoids(length: int, width: int) -> np.ndarray:
    """float32 [length, width]: sin at even, cos at odd columns, of wavelengths 2 pi to 10000 x 2 pi.

    Reference: Vaswani et al., arXiv:1706.03762, section 3.5.
    """
    angle = np.arange(length)[:, None] / 10_000.0 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(length, -1)[:, :width].astype(np.float32)


class Transformer(nn.Module):
    """Encoder and decoder with one embedding for source, target and output.

    Parameters (float32, one leaf a layer): ``embedding`` (V, D), ``encoder/block_00/...`` as
    in ``ViT``, ``decoder/block_00/...`` with ``cross_norm`` and ``cross_attention`` besides;
    with learned positions ``source_positions`` and ``target_positions`` (context, D); with
    norms before the branches ``encoder/norm`` and ``decoder/norm``.

    Attributes:
      width: D, width of the residual streams.
      depth: blocks of the encoder, and of the decoder.
      mlp_dim: hidden width of the MLPs.
      num_heads: attention heads; must divide the width.
      vocab_size: V, number of token ids, of both languages together.
      context: longest source, and longest target.
      decoder_depth: blocks of the decoder where they are not ``depth``.
      norm: ``post``, after each sum (published), or ``pre``, before each branch.
      positions: ``sinusoidal`` (published) or ``learned``.
      activation: of the MLPs: ``relu`` (published) or ``gelu``.
      dropout: after the embeddings and after each branch.
      attention_dropout: on the attention weights.
      attention_kernel: ``xla``, ``splash`` or ``cudnn``, as in ``layers.attention.Attention``; the same
        parameters, and results within rounding. No ``attention_dropout`` with the last two.
      hidden_dropout: after the activation.
      norm_eps: epsilon of all layer norms.
      dtype: compute dtype, also of the residual streams; parameters and logits are
        float32 in any case.
      remat: what the forward pass keeps, a name of ``layers.remat.REMAT_POLICIES``.
      unroll: a Python loop over the blocks instead of a scan; no change to
        parameters or results.

    Reference: Vaswani et al., "Attention Is All You Need", arXiv:1706.03762. Linear layers
      have biases and norms are LayerNorm with epsilon 1e-6, as in the authors' code.
    """

    width: Positive
    depth: Positive
    mlp_dim: Positive
    num_heads: Positive
    vocab_size: Positive
    context: Positive
    decoder_depth: Positive | None = None
    norm: Literal["post", "pre"] = "post"
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    activation: Literal["relu", "gelu"] = "relu"
    dropout: DropRate = 0.0
    attention_dropout: DropRate = 0.0
    attention_kernel: MaskedKernelName = "xla"
    hidden_dropout: DropRate = 0.0
    norm_eps: float = 1e-6
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: RematName = "none"
    unroll: bool = True

    def setup(self) -> None:
        check_heads(self.width, self.num_heads)
        for name, valid in (("norm", ("post", "pre")), ("positions", ("sinusoidal", "learned"))):
            if getattr(self, name) not in valid:
                raise UserError(f'model.{name}: expected one of {", ".join(valid)}, got "{getattr(self, name)}".')
        make_block = functools.partial(
            Block,
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            dropout=self.dropout,
            hidden_dropout=self.hidden_dropout,
            attention_dropout=self.attention_dropout,
            attention_kernel=self.attention_kernel,
            norm_eps=self.norm_eps,
            dtype=self.dtype,
            norm=self.norm,
            inits=TRANSFORMER_INITS,
            activation=self.activation,
        )
        normal = nn.initializers.normal(self.width**-0.5)
        self.embedding = self.param(
            "embedding", named(normal, ("vocab", "embed")), (self.vocab_size, self.width), jnp.float32
        )
        if self.positions == "learned":
            init, shape = named(normal, ("tokens", "embed")), (self.context, self.width)
            self.source_positions = self.param("source_positions", init, shape, jnp.float32)
            self.target_positions = self.param("target_positions", init, shape, jnp.float32)
        make_stack = functools.partial(
            Encoder, norm_eps=self.norm_eps, remat=self.remat, unroll=self.unroll, dtype=self.dtype
        )
        self.encoder = make_stack(self.depth, make_block)
        self.decoder = make_stack(self.decoder_depth or self.depth, functools.partial(make_block, cross=True))

    def __call__(
        self,
        source: Array,
        tokens: Array,
        *,
        source_segments: Array | None = None,
        segment_ids: Array | None = None,
        train: bool = False,
        rng: Array | None = None,
        return_intermediates: bool = False,
        return_attention: bool = False,
        return_logits: bool = True,
    ) -> ModelOutput:
        """Predicts the target token after each.

        Args:
          source: int32 [B, S], S at most ``context``, ids below ``vocab_size``.
          tokens: int32 [B, T], the target so far: the mark, then its tokens.
          source_segments: int32 [B, S]: runs of equal ids are sentences, which see and are
            seen by their own alone, and begin at position 0; 0 is padding. None: each row is one.
          segment_ids: int32 [B, T], likewise of the target: sentence i translates sentence i, so
            they need those of the source. None: each row is one, and sees all of the source that
            is no padding.
          train: whether dropout acts.
          rng: typed keys [B], one an example; None means no randomness.
          return_intermediates: also return ``encoder_block_00`` ... and ``decoder_block_00`` ...
          return_attention: also return ``encoder_attention_00`` [B, N, S, S],
            ``decoder_attention_00`` [B, N, T, T] and ``cross_attention_00`` [B, N, T, S], float32.
          return_logits: False leaves the logits to whoever needs them (``output_table``).

        Returns:
          logits float32 [B, T, V] or None, features [B, T, D] that make them, intermediates by name.

        Raises:
          UserError: a sequence longer than ``context``, tokens that are not [B, T], or
            ``segment_ids`` alone.
        """
        rng = rng if train else None
        check_tokens(source.shape, self.context, "source")
        check_tokens(tokens.shape, self.context)
        options = {"return_intermediates": return_intermediates, "return_attention": return_attention}
        memory, of_encoder = self._encode(source, source_segments, rng, **options)
        index = _positions(tokens)
        mask, positions, across = Mask.causal(), index, Mask()
        if segment_ids is not None:
            if source_segments is None:
                raise UserError(
                    "segment_ids: sentences of the target without those of the source; give source_segments."
                )
            mask, positions = mask & Mask.segments(segment_ids), positions_in_segments(segment_ids)
            across = Mask.segments(segment_ids, source_segments)
        elif source_segments is not None:
            across = Mask.padding(source_segments > 0)
        x = self._embed(tokens, positions, "target", rng)
        x, of_decoder = self.decoder(
            x,
            mask=mask_of(self.attention_kernel, mask, index, index),
            rng=fold(rng, DECODER),
            memory=memory,
            memory_mask=mask_of(self.attention_kernel, across, index, _positions(source)),
            **options,
        )
        x = self._normalised(self.decoder, x)
        named_decoder = {k if k.startswith("cross") else f"decoder_{k}": v for k, v in of_decoder.items()}
        intermediates = {f"encoder_{k}": v for k, v in of_encoder.items()} | named_decoder
        logits = vocabulary_logits(x, self.embedding) if return_logits else None
        return ModelOutput(logits=logits, features=x, intermediates=intermediates)

    def output_table(self, variables: PyTree) -> Array:
        """float32 [V, D] of the variables: what ``features`` are multiplied by to give logits."""
        return variables["params"]["embedding"]

    def num_tokens(self, size: object = None) -> int:
        """The longest sequence of either side, whatever ``size``."""
        return self.context

    def empty_cache(self, batch_size: int, slots: int, source_length: int) -> TransformerCache:
        """A cache for targets of up to ``slots`` tokens and sources of ``source_length``."""
        shape, dtype = (self.num_heads, self.width // self.num_heads), self.dtype
        blocks = tuple(
            (KVCache.zeros(batch_size, slots, *shape, dtype), KVCache.zeros(batch_size, source_length, *shape, dtype))
            for _ in range(self.decoder_depth or self.depth)
        )
        return TransformerCache(blocks, jnp.zeros((batch_size, source_length), bool))

    def decode(
        self,
        tokens: Array,
        positions: Array,
        cache: TransformerCache,
        source: tuple[Array, Array] | None = None,
        *,
        last: Array | None = None,
    ) -> ModelOutput:
        """The next tokens of targets whose earlier tokens are in the cache.

        Args:
          tokens: int32 [B, T].
          positions: int32 [B, T], where each stands in its target; below ``context``.
          cache: of ``empty_cache`` or of the last call.
          source: int32 [B, S] and bool [B, S], which are no padding: with the first call,
            which encodes it into the cache.
          last: int32 [B], of the T tokens the one whose logits are wanted; None: of all.

        Returns:
          logits float32 [B, T, V], or [B, 1, V] with ``last``, features [B, T, D] or [B, 1, D],
          and the new cache.
        """
        memory, valid = None, cache.source_valid
        if source is not None:
            check_tokens(source[0].shape, self.context, "source")
            valid = source[1]
            memory, _ = self._encode(source[0], valid.astype(jnp.int32), None)
        slots = jnp.arange(cache.blocks[0][0].num_slots, dtype=jnp.int32)[None]
        mask = Mask.causal().dense(positions, slots)
        assert mask is not None
        x, blocks = self.decoder.decode(
            self._embed(tokens, positions, "target", None),
            cache.blocks,
            mask=mask,
            slots=positions,
            memory=memory,
            memory_mask=valid[:, None, None, :],
        )
        x = self._normalised(self.decoder, only(x, last))
        logits = vocabulary_logits(x, self.embedding)
        return ModelOutput(logits=logits, features=x, cache=TransformerCache(blocks, valid))

    def _encode(
        self, source: Array, segments: Array | None, rng: Array | None, **options: Any
    ) -> tuple[Array, dict[str, Array]]:
        index = _positions(source)
        mask, positions = Mask(), index
        if segments is not None:
            mask, positions = Mask.segments(segments), positions_in_segments(segments)
        x = self._embed(source, positions, "source", rng)
        x, beside = self.encoder(
            x, mask=mask_of(self.attention_kernel, mask, index, index), rng=fold(rng, ENCODER), **options
        )
        return self._normalised(self.encoder, x), beside

    def _embed(self, tokens: Array, positions: Array, side: Literal["source", "target"], rng: Array | None) -> Array:
        if self.positions == "learned":
            table = self.source_positions if side == "source" else self.target_positions
        else:
            table = jnp.asarray(sinusoids(self.context, self.width))
        x = self.embedding.astype(self.dtype)[tokens] * self.width**0.5 + table.astype(self.dtype)[positions]
        keys = fold(rng, ENCODER if side == "source" else DECODER)
        return constrain(dropout(x, self.dropout, keys, EMBEDDINGS), _STREAM)

    def _normalised(self, stack: Any, x: Array) -> Array:
        return stack.normalise(x) if self.norm == "pre" else x


def _positions(tokens: Array) -> Array:
    return jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]


_STREAM = ("batch", "tokens", "embed")
