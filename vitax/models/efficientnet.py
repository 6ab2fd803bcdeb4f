"""EfficientNet: inverted bottlenecks with squeeze and excite, scaled in width, depth and resolution."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vitax.core.errors import UserError, pick
from vitax.core.types import ModelOutput
from vitax.layers.batch_norm import STATISTICS
from vitax.layers.dropout import dropout, fold
from vitax.layers.mbconv import ACTIVATIONS, ConvNorm, MBConv, Style
from vitax.layers.remat import REMAT_POLICIES, RematName
from vitax.models.efficientnet_sizes import STAGES, scaled_blocks, scaled_channels
from vitax.models.vit import Head

Array = jax.Array

# Site of the dropout before the head; block i of the whole network draws from FIRST_BLOCK + i.
BEFORE_HEAD = 0
FIRST_BLOCK = 1


class Stage(nn.Module):
    """Blocks of one resolution: the first may stride and widen, the others are equal.

    Parameters and statistics are one leaf a block, ``block_01``..., whichever way the
    equal blocks run; ``unroll=False`` scans over them (see ``layers.encoder``).

    Attributes:
      blocks: how many.
      stride: of the first.
      make_block: constructor of a block (all but ``stride``, ``name`` and ``parent`` bound).
      first: number of the first block in the network.
      keep: probability of keeping the residual branch of each block, or None for 1.
      remat: a name of ``REMAT_POLICIES``, around each block.
      unroll: a Python loop instead of a scan.
    """

    blocks: int
    stride: int
    make_block: Callable[..., MBConv]
    first: int
    keep: tuple[float, ...] | None = None
    remat: RematName = "none"
    unroll: bool = True

    def setup(self) -> None:
        self.stack = [
            self.make_block(stride=1 if i else self.stride, name=f"block_{i + 1:02d}") for i in range(self.blocks)
        ]

    def __call__(self, x: Array, *, train: bool, mask: Array | None, rng: Array | None) -> Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]; arguments as in ``MBConv``."""
        if self.is_initializing():
            # Creates parameters and statistics, whichever way the stack will run.
            for block in self.stack:
                x = block(x)
            return x
        names = [f"block_{i + 1:02d}" for i in range(self.blocks)]
        params, statistics = (nn.meta.unbox(self.variables[c]) for c in ("params", STATISTICS))

        def body(block: MBConv, x: Array, layer: tuple[Any, Any, Any, Any]) -> tuple[Array, Any]:
            params, statistics, index, keep = layer
            keys = fold(rng, FIRST_BLOCK + index)
            run = functools.partial(block.apply, {"params": params, STATISTICS: statistics}, x, train=train)
            if not train:
                return run(), statistics  # type: ignore[return-value]
            y, changed = run(mask=mask, rng=keys, keep=keep, mutable=[STATISTICS])
            return y, changed[STATISTICS]

        policy = pick(REMAT_POLICIES, self.remat, "model.remat")

        def runner(stride: int, scanned: bool) -> Callable[..., tuple[Array, Any]]:
            # Unbound: pure in its variables, so that one body serves the loop, the scan and the remat.
            one = functools.partial(body, self.make_block(stride=stride, parent=None))
            return one if policy is None else jax.checkpoint(one, policy=policy, prevent_cse=not scanned)

        keep = None if self.keep is None else np.asarray(self.keep, np.float32)
        layers = [
            (params[n], statistics[n], self.first + i, None if keep is None else keep[i]) for i, n in enumerate(names)
        ]
        x, first = runner(self.stride, False)(x, layers[0])
        after = [first]
        if self.unroll or self.blocks < 3:
            for layer in layers[1:]:
                x, new = runner(1, False)(x, layer)
                after.append(new)
        else:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers[1:])
            x, new = jax.lax.scan(runner(1, True), x, stacked)
            after += [jax.tree.map(lambda leaf, i=i: leaf[i], new) for i in range(self.blocks - 1)]
        if train:
            for name, new in zip(names, after):
                self.put_variable(STATISTICS, name, new)
        return x


class EfficientNet(nn.Module):
    """EfficientNet, with the options of its Lite variants and of PyTorch ports.

    Parameters (float32, one leaf a layer): ``stem/{conv,norm}``, ``stage_1/block_01/
    {expand, expand_norm, depthwise, depthwise_norm, squeeze, excite, project,
    project_norm}``, ``top/{conv,norm}``, ``head``. The collection ``batch_stats`` has the
    running ``mean`` and ``var`` of each norm under the same path.

    Attributes:
      width_factor: of the channels of every layer, rounded to multiples of 8.
      depth_factor: of the blocks of every stage, rounded up.
      num_classes: classes of the linear head; 0 = no head, logits None.
      dropout: before the head.
      stochastic_depth: probability of dropping a residual branch for an example, block i
        of n: ``stochastic_depth * i / n`` from i = 0, as in the authors' code.
      squeeze: width of squeeze and excite as a part of the channels that enter the
        block; 0 = absent (Lite).
      activation: ``silu``, or ``relu6`` (Lite).
      fixed_ends: leave out stem, top, and the depth of the first and the last stage when
        scaling (Lite).
      padding: ``same`` (TensorFlow's, and the original) or ``symmetric`` (ports trained
        in PyTorch); not interchangeable where weights are.
      norm_momentum: of the running statistics, TensorFlow's convention.
      norm_eps: epsilon of all batch norms: 1e-3 in the original, 1e-5 in ports trained in
        PyTorch.
      head_bias_init: start value of the head's bias.
      zero_head: start the head's kernel at zero.
      stages: (side of the kernel, stride, expansion, channels, blocks) of each stage
        before scaling.
      stem_channels: before scaling.
      top_channels: before scaling.
      dtype: compute dtype; parameters, statistics and logits are float32 in any case.
      remat: what the forward pass keeps, a name of ``layers.remat.REMAT_POLICIES``.
      unroll: a Python loop over the equal blocks of a stage instead of a scan; no change
        to parameters or results.

    Reference: arXiv:1905.11946. Survival probability 0.8 and other settings: section 5.2.
    """

    width_factor: float = 1.0
    depth_factor: float = 1.0
    num_classes: int = 0
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    squeeze: float = 0.25
    activation: Literal["silu", "relu6"] = "silu"
    fixed_ends: bool = False
    padding: Literal["same", "symmetric"] = "same"
    norm_momentum: float = 0.99
    norm_eps: float = 1e-3
    head_bias_init: float = 0.0
    zero_head: bool = False
    stages: tuple[tuple[int, ...], ...] = STAGES
    stem_channels: int = 32
    top_channels: int = 1280
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: RematName = "none"
    unroll: bool = True

    def setup(self) -> None:
        pick(ACTIVATIONS, self.activation, "model.activation")
        pick(dict.fromkeys(("same", "symmetric")), self.padding, "model.padding")
        for i, row in enumerate(self.stages):
            if len(row) != 5 or min(row) < 1:
                raise UserError(
                    f"model.stages.{i}: expected (side of the kernel, stride, expansion, channels, blocks), "
                    f"all at least 1, got {tuple(row)}."
                )
        style = Style(self.activation, self.padding, self.norm_momentum, self.norm_eps, self.dtype)
        ends = 1.0 if self.fixed_ends else self.width_factor
        self.stem = ConvNorm(scaled_channels(self.stem_channels, ends), 3, ("channels", "embed"), style, 2)
        keep, first = self.keep_probabilities(), 0
        stages = []
        for i, ((size, stride, expansion, channels, _), blocks) in enumerate(zip(self.stages, self.blocks)):
            make_block = functools.partial(
                MBConv,
                scaled_channels(channels, self.width_factor),
                size,
                style,
                expansion=expansion,
                squeeze=self.squeeze,
            )
            kept = None if keep is None else tuple(keep[first : first + blocks])
            stages.append(
                Stage(blocks, stride, make_block, first, kept, self.remat, self.unroll, name=f"stage_{i + 1}")
            )
            first += blocks
        self.body = stages
        # As behind ViT's pre_logits: one mesh axis cannot shard both sides of the head.
        self.top = ConvNorm(scaled_channels(self.top_channels, ends), 1, ("embed", "pre_logits"), style)
        if self.num_classes:
            self.head = Head(self.num_classes, self.head_bias_init, self.zero_head, True, self.dtype)

    def __call__(
        self,
        images: Array,
        *,
        train: bool = False,
        rng: Array | None = None,
        mask: Array | None = None,
        return_intermediates: bool = False,
    ) -> ModelOutput:
        """Classifies images.

        Args:
          images: float [B, H, W, C], already scaled.
          train: whether dropout and stochastic depth act, and norms take the statistics of
            the batch and update the running ones (``mutable=["batch_stats"]``).
          rng: typed keys [B], one an example; None means no randomness.
          mask: bool [B], False = padding, which the statistics leave out; None = none.
          return_intermediates: also return ``stem``, ``stage_1``... and ``top``, each
            [B, H', W', C'].

        Returns:
          logits float32 [B, num_classes] (None without a head), features [B, C] before
          dropout, intermediates by name.

        Raises:
          UserError: images of another rank.
        """
        if images.ndim != 4:
            raise UserError(f"images: expected [batch, height, width, channels], got shape {tuple(images.shape)}.")
        rng = rng if train else None
        x = self.stem(images, train=train, mask=mask)
        maps = {"stem": x}
        for i, stage in enumerate(self.body):
            x = stage(x, train=train, mask=mask, rng=rng)
            maps[f"stage_{i + 1}"] = x
        x = maps["top"] = self.top(x, train=train, mask=mask)
        features = x.astype(jnp.float32).mean((1, 2)).astype(x.dtype)
        logits = self.head(dropout(features, self.dropout, rng, BEFORE_HEAD)) if self.num_classes else None
        return ModelOutput(logits=logits, features=features, intermediates=maps if return_intermediates else {})

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks of each stage after scaling."""
        ends = (0, len(self.stages) - 1) if self.fixed_ends else ()
        return tuple(
            row[4] if i in ends else scaled_blocks(row[4], self.depth_factor) for i, row in enumerate(self.stages)
        )

    def keep_probabilities(self) -> np.ndarray | None:
        """float32 [blocks]: 1 - stochastic_depth * i / blocks, or None for all 1."""
        if not self.stochastic_depth:
            return None
        blocks = sum(self.blocks)
        return (1.0 - self.stochastic_depth * np.arange(blocks) / blocks).astype(np.float32)
