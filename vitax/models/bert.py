"""BERT: an encoder of text with a head for its task."""

import functools
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitax.core.axes import constrain
from vitax.core.bounds import DropRate, NotNegative, Positive
from vitax.core.errors import UserError
from vitax.core.types import ModelOutput, PyTree
from vitax.layers.blocks import Block
from vitax.layers.dropout import dropout
from vitax.layers.encoder import FIRST_BLOCK, Encoder
from vitax.layers.fused_attention import mask_of
from vitax.layers.inits import bert_inits
from vitax.layers.kernels import MaskedKernelName
from vitax.layers.linear import Linear
from vitax.layers.masks import Mask, positions_in_segments
from vitax.layers.named import named
from vitax.layers.norm import LayerNorm
from vitax.layers.remat import RematName
from vitax.layers.vocabulary import vocabulary_logits
from vitax.models.sequences import check_heads, check_tokens

Array = jax.Array
HeadName = Literal["pretraining", "mlm", "classification", "span", "none"]

# Site of the dropout after the embeddings; blocks follow, and the pooled vector comes last.
EMBEDDINGS = 0
# Heads behind the pooler: the others read tokens alone.
_POOLED = ("pretraining", "classification", "none")
_INITS = bert_inits()


class Embedding(nn.Module):
    """Tables ``token`` (V, D), ``position`` (context, D), ``type`` (num_types, D)."""

    width: int
    vocab_size: int
    context: int
    num_types: int
    dtype: Any

    def setup(self) -> None:
        tables = {
            "token": (self.vocab_size, "vocab"),
            "position": (self.context, "tokens"),
            "type": (self.num_types, None),
        }
        self.tables = {
            name: self.param(name, named(_INITS.kernel, (axis, "embed")), (rows, self.width), jnp.float32)
            for name, (rows, axis) in tables.items()
        }

    def __call__(self, tokens: Array, positions: Array, token_types: Array) -> Array:
        """The sum of three rows: int32 [B, T], [B or 1, T], [B, T] -> [B, T, D]."""
        ids = {"token": tokens, "position": positions, "type": token_types}
        token, position, kind = (self.tables[name].astype(self.dtype)[x] for name, x in ids.items())
        return token + position + kind


class MaskedTokens(nn.Module):
    """What the output layer of masked tokens sees: ``dense``, GELU, ``norm``; and its ``bias`` (V,)."""

    vocab_size: int
    norm_eps: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Maps [B, M, D] to [B, M, D], beside it the bias float32 [V]."""
        x = Linear((x.shape[-1],), ("embed", "pre_logits"), self.dtype, _INITS.kernel, name="dense")(x)
        x = LayerNorm(self.norm_eps, self.dtype, name="norm")(jax.nn.gelu(x, approximate=False))
        return x, self.param("bias", named(nn.initializers.zeros_init(), ("vocab",)), (self.vocab_size,), jnp.float32)


class BERT(nn.Module):
    """Bidirectional encoder of text, normalised after each sum, with the head of a task.

    Parameters (float32, one leaf a layer): ``embedding/{token,position,type}``,
    ``embedding_norm``, ``encoder/block_00/...`` as in ``ViT`` without a final norm,
    ``pooler`` (heads ``pretraining``, ``classification``, ``none``), ``mlm/{dense,norm,bias}``
    (``pretraining``, ``mlm``; its kernel is the token table), ``next_sentence``, ``head``.

    Attributes:
      width: D, width of the residual stream.
      depth: number of blocks.
      mlp_dim: hidden width of the MLPs.
      num_heads: attention heads; must divide the width.
      vocab_size: V, number of token ids.
      context: longest sequence; the number of learned positions.
      num_types: kinds of token (first or second sentence).
      head: ``pretraining`` (masked tokens and next sentence), ``mlm`` (masked tokens),
        ``classification`` of the pooled vector, ``span`` (where an answer starts and
        ends), or ``none``.
      num_classes: outputs of ``classification``; 1 for regression.
      dropout: after the embeddings, after each branch, and on the pooled vector in front
        of ``classification``.
      attention_dropout: on the attention weights.
      attention_kernel: ``xla``, ``splash`` or ``cudnn``, as in ``layers.attention.Attention``; the same
        parameters, and results within rounding. No ``attention_dropout`` with the last two.
      norm_eps: epsilon of all layer norms.
      dtype: compute dtype, also of the residual stream; parameters and logits are
        float32 in any case.
      remat: what the forward pass keeps, a name of ``layers.remat.REMAT_POLICIES``.
      unroll: a Python loop over the blocks instead of a scan; no change to
        parameters or results.

    Reference: Devlin et al., arXiv:1810.04805, section 3 and appendix A; start values and
    epsilon as in its code.
    """

    width: Positive
    depth: Positive
    mlp_dim: Positive
    num_heads: Positive
    vocab_size: Positive
    context: Positive
    num_types: Positive = 2
    head: HeadName = "pretraining"
    num_classes: NotNegative = 0
    dropout: DropRate = 0.0
    attention_dropout: DropRate = 0.0
    attention_kernel: MaskedKernelName = "xla"
    norm_eps: float = 1e-12
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: RematName = "none"
    unroll: bool = True

    def setup(self) -> None:
        self._check_fields()
        make_block = functools.partial(
            Block,
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            dropout=self.dropout,
            hidden_dropout=0.0,
            attention_dropout=self.attention_dropout,
            attention_kernel=self.attention_kernel,
            gelu="erf",
            norm_eps=self.norm_eps,
            dtype=self.dtype,
            norm="post",
            inits=_INITS,
        )
        self.embedding = Embedding(self.width, self.vocab_size, self.context, self.num_types, self.dtype)
        self.embedding_norm = LayerNorm(self.norm_eps, self.dtype)
        self.encoder = Encoder(self.depth, make_block, remat=self.remat, unroll=self.unroll, dtype=self.dtype)
        if self.head in _POOLED:
            self.pooler = Linear((self.width,), ("embed", "pre_logits"), self.dtype, _INITS.kernel)
        if self.head in ("pretraining", "mlm"):
            self.mlm = MaskedTokens(self.vocab_size, self.norm_eps, self.dtype)
        if self.head == "pretraining":
            self.next_sentence = Linear((2,), ("embed", "classes"), "float32", _INITS.kernel)

    @nn.compact  # for the parameters of ``head``, whose name here is a field's
    def __call__(
        self,
        tokens: Array,
        *,
        segment_ids: Array | None = None,
        token_types: Array | None = None,
        masked_positions: Array | None = None,
        train: bool = False,
        rng: Array | None = None,
        return_intermediates: bool = False,
        return_attention: bool = False,
        return_logits: bool = True,
    ) -> ModelOutput:
        """Encodes sequences and runs the head.

        Args:
          tokens: int32 [B, T], T at most ``context``, ids below ``vocab_size``.
          segment_ids: int32 [B, T]: tokens see those of equal id only, and positions start
            again with each run; 0 is padding. None: each row is one sequence, unpadded.
          token_types: int32 [B, T] below ``num_types``; None: all 0.
          masked_positions: int32 [B, M], the tokens that ``pretraining`` and ``mlm``
            predict; None: all.
          train: whether dropout acts.
          rng: typed keys [B], one an example; None means no randomness.
          return_intermediates: also return ``embedding`` and ``block_00``..., [B, T, D].
          return_attention: also return ``attention_00``..., float32 [B, N, T, T].
          return_logits: False leaves the logits of masked tokens to whoever needs them
            (``output_layer``).

        Returns:
          features [B, T, D], the last hidden states; logits float32 of the head: [B, M, V]
          of masked tokens, [B, num_classes], [B, T, 2] (start, end), or None. Intermediates
          hold ``pooled`` [B, D] (of each row's first token) where there is a pooler,
          ``next_sentence`` float32 [B, 2] for ``pretraining``, and ``masked`` [B, M, D],
          what the logits of masked tokens are made of.

        Raises:
          UserError: a sequence longer than ``context``, tokens that are not [B, T], or
            masked positions for a head that has no use for them.
        """
        check_tokens(tokens.shape, self.context)
        if masked_positions is not None and self.head not in ("pretraining", "mlm"):
            raise UserError(f'masked_positions: model.head "{self.head}" predicts no masked tokens; leave them out.')
        rng = rng if train else None
        index = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
        mask, positions = Mask(), index
        if segment_ids is not None:
            mask, positions = Mask.segments(segment_ids), positions_in_segments(segment_ids)
        token_types = jnp.zeros_like(tokens) if token_types is None else token_types
        x = self.embedding_norm(constrain(self.embedding(tokens, positions, token_types), _STREAM))
        x = constrain(dropout(x, self.dropout, rng, EMBEDDINGS), _STREAM)
        intermediates = {"embedding": x} if return_intermediates else {}
        x, of_blocks = self.encoder(
            x,
            mask=mask_of(self.attention_kernel, mask, index, index),
            rng=rng,
            return_intermediates=return_intermediates,
            return_attention=return_attention,
        )
        intermediates |= of_blocks
        if self.head in _POOLED:
            intermediates["pooled"] = jnp.tanh(self.pooler(x[:, 0]))
        if self.head == "pretraining":
            intermediates["next_sentence"] = self.next_sentence(intermediates["pooled"])
        logits, axes = None, ("embed", "classes")
        if self.head in ("pretraining", "mlm"):
            intermediates["masked"], bias = self._masked_tokens(x, masked_positions)
            if return_logits:
                logits = vocabulary_logits(intermediates["masked"], self.embedding.tables["token"], bias)
        elif self.head == "classification":
            pooled = dropout(intermediates["pooled"], self.dropout, rng, FIRST_BLOCK + self.depth)
            logits = Linear((self.num_classes,), axes, "float32", _INITS.kernel, name="head")(pooled)
        elif self.head == "span":
            logits = Linear((2,), axes, "float32", _INITS.kernel, name="head")(x)
        return ModelOutput(logits=logits, features=x, intermediates=intermediates)

    def num_tokens(self, size: object = None) -> int:
        """The longest sequence, whatever ``size``."""
        return self.context

    def output_layer(self, variables: PyTree) -> tuple[Array, Array]:
        """float32 [V, D] and [V] of the variables: what makes logits of ``masked``."""
        params = variables["params"]
        return params["embedding"]["token"], params["mlm"]["bias"]

    def _masked_tokens(self, x: Array, positions: Array | None) -> tuple[Array, Array]:
        if positions is not None:
            # Before the output layer: the vocabulary is wide, and one token in seven is masked.
            x = jnp.take_along_axis(x, positions[:, :, None], axis=1)
        return self.mlm(x)

    def _check_fields(self) -> None:
        check_heads(self.width, self.num_heads)
        if self.head not in get_args(HeadName):
            raise UserError(f'model.head: expected one of {", ".join(get_args(HeadName))}, got "{self.head}".')
        if (self.head == "classification") != (self.num_classes > 0):
            raise UserError(
                f'model.num_classes: {self.num_classes} with model.head "{self.head}". The head "classification" '
                "needs 1 or more (1 for regression); the others have none: leave it 0."
            )


_STREAM = ("batch", "tokens", "embed")
