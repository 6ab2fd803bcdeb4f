"""The Vision Transformer."""

import functools
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitax.core.axes import constrain
from vitax.core.bounds import DropRate, NotNegative, Positive
from vitax.core.errors import UserError
from vitax.core.layout import channels_first
from vitax.core.types import ModelOutput
from vitax.layers.attention import Attention
from vitax.layers.blocks import Block, Mlp
from vitax.layers.dropout import dropout
from vitax.layers.embed import PatchEmbedding, sincos2d
from vitax.layers.encoder import Encoder
from vitax.layers.head import Head
from vitax.layers.kernels import KernelName
from vitax.layers.linear import Linear
from vitax.layers.named import named
from vitax.layers.norm import LayerNorm
from vitax.layers.remat import RematName

Array = jax.Array

# Site of the dropout after the positions; the encoder's blocks use 1 and up.
POSITIONS = 0


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _by(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"


class MapHead(nn.Module):
    """Pools tokens by attention from one learned query, then a residual MLP.

    Parameters: ``probe`` (1, 1, D), ``attention``, ``norm``, ``mlp``.

    Attributes:
      num_heads: attention heads.
      mlp_dim: hidden width of the MLP.
      gelu: as in ``Mlp``.
      norm_eps: epsilon of the norm.
      dtype: compute dtype.

    Reference: Set Transformer, arXiv:1810.00825, section 3.2, as used by "Scaling
    Vision Transformers", arXiv:2106.04560, section 3.2.
    """

    num_heads: int
    mlp_dim: int
    gelu: Literal["tanh", "erf"] = "tanh"
    norm_eps: float = 1e-6
    dtype: Any = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, T, D] to [B, D]."""
        init = named(nn.initializers.xavier_uniform(), (None, None, "embed"))
        probe = self.param("probe", init, (1, 1, x.shape[-1]), jnp.float32).astype(self.dtype)
        probe = jnp.broadcast_to(probe, (x.shape[0], 1, x.shape[-1]))
        y, _ = Attention(self.num_heads, dtype=self.dtype, name="attention")(probe, x)
        z = LayerNorm(self.norm_eps, self.dtype, name="norm")(y)
        return (y + Mlp(self.mlp_dim, gelu=self.gelu, dtype=self.dtype, name="mlp")(z))[:, 0]


class ViT(nn.Module):
    """Vision Transformer.

    Parameters (float32, one leaf a layer): ``embedding/{kernel,bias}``, ``cls``,
    ``registers``, ``pos_embedding`` (1, patches [+ 1 for ``tok``, in front], D),
    ``encoder/block_00/{norm_1, attention/{query,key,value,out}, norm_2,
    mlp/{in,out}, layer_scale_1, layer_scale_2}``, ``encoder/norm``, ``map_head``,
    ``pre_logits``, ``head``. Tokens run [cls, registers, patches by row].

    Attributes:
      width: D, width of the residual stream.
      depth: number of blocks.
      mlp_dim: hidden width of the MLPs.
      num_heads: attention heads; must divide the width.
      patch_size: patch side in pixels, or (height, width).
      num_classes: classes of the linear head; 0 = no head, logits None.
      pool: what the head sees: ``tok`` the cls token (the paper), ``gap`` the mean
        of the patch tokens, ``map`` attention pooling.
      norm_after_pool: ``gap`` only: mean first, then the final norm (MAE), instead
        of the mean of normalised tokens.
      position: ``learned`` (the paper) or ``sincos2d`` (fixed; works at any size).
      position_init: standard deviation of learned positions at the start: 0.02 in
        the paper's code, 1/sqrt(width) in big_vision.
      num_registers: learned tokens without a position, dropped at the end.
      dropout: after every dense layer but query, key, value, and after the positions.
      attention_dropout: on the attention weights; 0 in the paper.
      stochastic_depth: probability of dropping the branches of the last block for an
        example; grows linearly from 0 at the first block.
      layer_scale: start value of a learned scale on every branch; None = absent.
      pre_logits: a hidden layer with tanh in front of the head: its width, True for
        the width of the model, False or 0 for none.
      head_bias_init: start value of the head's bias (-10 for sigmoid losses with
        many classes).
      zero_head: start the head's kernel at zero (the paper's fine-tuning).
      gelu: ``tanh`` (numerics of the original) or ``erf`` (of torch ports).
      norm_eps: epsilon of all layer norms.
      dtype: compute dtype, also of the residual stream; parameters and logits are
        float32 in any case.
      attention_kernel: of the encoder's blocks, as in ``layers.attention.Attention``:
        ``xla``, or a fused kernel for TPUs (``pallas``, ``splash``) or GPUs (``cudnn``);
        the same parameters, and results within rounding. No ``attention_dropout`` with these.
      remat: what the forward pass keeps, a name of ``layers.remat.REMAT_POLICIES``.
      unroll: a Python loop over the blocks instead of a scan; no change to
        parameters or results.
      image_size: (height, width) or one side in pixels that learned positions are
        made for; None takes it from the images at ``init`` and then can only check
        the number of patches later, not their arrangement.

    Reference: arXiv:2010.11929. ``gap`` and ``sincos2d``: "Better plain ViT
    baselines", arXiv:2205.01580. Registers: arXiv:2309.16588.
    """

    width: Positive
    depth: Positive
    mlp_dim: Positive
    num_heads: Positive
    patch_size: Positive | tuple[Positive, Positive]
    num_classes: NotNegative = 0
    pool: Literal["tok", "gap", "map"] = "tok"
    norm_after_pool: bool = False
    position: Literal["learned", "sincos2d"] = "learned"
    position_init: float = 0.02
    num_registers: NotNegative = 0
    dropout: DropRate = 0.0
    attention_dropout: DropRate = 0.0
    stochastic_depth: DropRate = 0.0
    layer_scale: float | None = None
    pre_logits: bool | int = False
    head_bias_init: float = 0.0
    zero_head: bool = True
    gelu: Literal["tanh", "erf"] = "tanh"
    norm_eps: float = 1e-6
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention_kernel: KernelName = "xla"
    remat: RematName = "none"
    unroll: bool = True
    image_size: int | tuple[int, int] | None = None

    def setup(self) -> None:
        if self.width % self.num_heads:
            raise UserError(f"model: width {self.width} does not divide into {self.num_heads} heads.")
        for name, value, valid in (
            ("pool", self.pool, ("tok", "gap", "map")),
            ("position", self.position, ("learned", "sincos2d")),
            ("gelu", self.gelu, ("tanh", "erf")),
            ("attention_kernel", self.attention_kernel, get_args(KernelName)),
        ):
            if value not in valid:
                raise UserError(f'model.{name}: expected one of {", ".join(valid)}, got "{value}".')
        if self.norm_after_pool and self.pool != "gap":
            raise UserError(f'model.norm_after_pool: only for pool "gap", not "{self.pool}".')

        make_block = functools.partial(
            Block,
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            layer_scale=self.layer_scale,
            gelu=self.gelu,
            norm_eps=self.norm_eps,
            dtype=self.dtype,
            attention_kernel=self.attention_kernel,
        )
        self.embedding = PatchEmbedding(self.width, _pair(self.patch_size), self.dtype)
        if self.pool == "tok":
            zeros = named(nn.initializers.zeros_init(), (None, None, "embed"))
            self.cls = self.param("cls", zeros, (1, 1, self.width), jnp.float32)
        if self.num_registers:
            normal = named(nn.initializers.normal(0.02), (None, "tokens", "embed"))
            self.registers = self.param("registers", normal, (1, self.num_registers, self.width), jnp.float32)
        self.encoder = Encoder(
            self.depth,
            make_block,
            self.stochastic_depth,
            self.norm_eps,
            self.remat,
            self.unroll,
            self.dtype,
        )
        if self.pool == "map":
            self.map_head = MapHead(self.num_heads, self.mlp_dim, self.gelu, self.norm_eps, self.dtype)
        if self.pre_logits:
            hidden = self.width if self.pre_logits is True else int(self.pre_logits)
            init = nn.initializers.lecun_normal()
            self.hidden = Linear((hidden,), ("embed", "pre_logits"), self.dtype, init, name="pre_logits")
        if self.num_classes:
            self.head = Head(self.num_classes, self.head_bias_init, self.zero_head, bool(self.pre_logits), self.dtype)

    @nn.compact
    def __call__(
        self,
        images: Array,
        *,
        train: bool = False,
        rng: Array | None = None,
        return_intermediates: bool = False,
        return_attention: bool = False,
    ) -> ModelOutput:
        """Classifies images.

        Args:
          images: float [B, H, W, C], already scaled (the original: to [-1, 1]).
          train: whether dropout and stochastic depth act.
          rng: typed keys [B], one an example; None means no randomness.
          return_intermediates: also return ``embedding`` (tokens that enter the first
            block, [B, T, D]), ``block_00``... (output of each block, [B, T, D]) and
            ``patch_tokens`` (patch tokens after the final norm, [B, patches, D];
            before it under ``norm_after_pool``).
          return_attention: also return ``attention_00``..., float32 [B, N, T, T].

        Returns:
          logits float32 [B, num_classes] (None without a head), features [B, D or
          width of pre_logits] as the head sees them, intermediates by name.

        Raises:
          UserError: images that the patches do not divide, or not of the size that
            the learned positions were made for.
        """
        rng = rng if train else None
        grid = self._grid(images.shape)
        patches = self.embedding(self.maps(images))
        front = 1 if self.pool == "tok" else 0
        x = self._add_positions(patches, grid, front)
        x = constrain(dropout(x, self.dropout, rng, POSITIONS), ("batch", "tokens", "embed"))
        intermediates = {"embedding": x} if return_intermediates else {}
        x, named = self.encoder(
            x,
            rng=rng,
            return_intermediates=return_intermediates,
            return_attention=return_attention,
        )
        intermediates |= named
        first_patch = front + self.num_registers
        if self.norm_after_pool:
            patch_tokens = x[:, first_patch:]
            x = self.encoder.normalise(_mean(patch_tokens))
        else:
            x = self.encoder.normalise(x)
            patch_tokens = x[:, first_patch:]
            if self.pool == "tok":
                x = x[:, 0]
            elif self.pool == "gap":
                x = _mean(patch_tokens)
            else:
                x = self.map_head(patch_tokens)
        if return_intermediates:
            intermediates["patch_tokens"] = patch_tokens
        if self.pre_logits:
            x = jnp.tanh(self.hidden(x))
        logits = self.head(x) if self.num_classes else None
        return ModelOutput(logits=logits, features=x, intermediates=intermediates)

    def maps(self, images: Array) -> Array:
        """What is cut into patches: the images themselves."""
        return images

    def stride(self) -> tuple[int, int]:
        """(height, width) in pixels of what makes one token."""
        return _pair(self.patch_size)

    def grid(self, image_size: int | tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of patches in images of this size.

        Raises:
          UserError: the patches do not divide the images.
        """
        size, patch = _pair(image_size), self.stride()
        if size[0] % patch[0] or size[1] % patch[1]:
            raise UserError(
                f"images of {_by(size)} px do not divide into patches of {_by(patch)} px. "
                "Resize them to a multiple, or change model.patch_size."
            )
        return size[0] // patch[0], size[1] // patch[1]

    def num_tokens(self, image_size: int | tuple[int, int]) -> int:
        """Length of the sequence in the encoder for images of this size."""
        rows, columns = self.grid(image_size)
        return rows * columns + self.num_registers + (self.pool == "tok")

    def _grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        if len(shape) != 4:
            raise UserError(f"images: expected [batch, height, width, channels], got shape {tuple(shape)}.")
        if channels_first(shape[1:]):
            raise UserError(
                f"images of shape {tuple(shape)} have their channels first; expected them last: [batch, height, width, "
                "channels]. Move the axis with images.transpose(0, 2, 3, 1)."
            )
        return self.grid((shape[1], shape[2]))

    def _add_positions(self, patches: Array, grid: tuple[int, int], front: int) -> Array:
        """[B, patches, D] -> [B, cls + registers + patches, D] with positions."""
        dtype, batch = patches.dtype, patches.shape[0]
        if self.position == "sincos2d":
            table: Any = jnp.asarray(sincos2d(grid, self.width), dtype)
            first = self.cls.astype(dtype) if front else None
        else:
            table = self._learned(grid, front).astype(dtype)
            first = self.cls.astype(dtype) + table[:, :1] if front else None
            table = table[:, front:]
        parts = [] if first is None else [first]
        if self.num_registers:
            parts.append(self.registers.astype(dtype))
        parts = [jnp.broadcast_to(part, (batch, *part.shape[1:])) for part in parts]
        return jnp.concatenate([*parts, patches + table], axis=1)

    def _learned(self, grid: tuple[int, int], front: int) -> Array:
        patch = self.stride()
        size = (grid[0] * patch[0], grid[1] * patch[1])
        mend = (
            "Resize the images, or resample the positions (vitax.layers.embed.resample_positions; a warm start "
            "through init_from does it), and set model.image_size to the new size."
        )
        if self.image_size is not None and _pair(self.image_size) != size:
            raise UserError(
                f"images of {_by(size)} px, but the learned positions are for {_by(_pair(self.image_size))} px "
                f"(model.image_size). {mend}"
            )
        slots = grid[0] * grid[1] + front
        if self.has_variable("params", "pos_embedding"):
            have = nn.meta.unbox(self.get_variable("params", "pos_embedding")).shape[1]
            if have != slots:
                side = round((have - front) ** 0.5)
                square = f" ({_by((side * patch[0], side * patch[1]))} px if square)" if side**2 == have - front else ""
                raise UserError(
                    f"images of {_by(size)} px make {slots - front} patches, but the learned positions hold "
                    f"{have - front}{square}. {mend}"
                )
        init = named(nn.initializers.normal(self.position_init), (None, "tokens", "embed"))
        return self.param("pos_embedding", init, (1, slots, self.width), jnp.float32)


def _mean(tokens: Array) -> Array:
    return tokens.astype(jnp.float32).mean(1).astype(tokens.dtype)
