"""What all optimisers share: a spec -> an optax transformation, built from optax's parts.

What happens to the gradient of a step, in this order:

1. ``weight_decay_scale = "gradient"``: the decay is added to it.
2. It is clipped to ``clip_norm``, over all parameters that train.
3. The method makes a direction ``u`` of it (momentum, Adam, ...).
4. Decay and rate, with ``m`` the leaf's multiplier and ``lr`` the schedule at this update:
   ``lr``: ``p -= lr m (u + weight_decay p)``; ``schedule``:
   ``p -= lr m u + (lr / peak) weight_decay p``.

Frozen parameters take part in none of it, the norm included.

The state is a tree of arrays whose leaves are named after their parameters, one a
layer; see ``vitax.optim.leaves`` for what follows from that.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax

from vitax.core import tree
from vitax.core.errors import UserError
from vitax.core.types import PyTree
from vitax.optim.leaves import LeafRule, rules

KERNELS = (r"(^|/)kernel$",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Fields that all optimisers have.

    Attributes:
      lr: peak learning rate; the schedule is built with it.
      weight_decay: strength, on the leaves of ``decay_mask`` alone.
      weight_decay_scale: what it is multiplied by. ``lr``: the rate of the step and the
        leaf's multiplier, decoupled (AdamW, arXiv:1711.05101, as PyTorch and optax have
        it; the "WD" of ViT's Table 3). ``schedule``: the rate of the step over the peak,
        decoupled (big_vision, whose ``wd`` is thus the paper's times the peak; rate
        multipliers do not touch it). ``gradient``: coupled, added to the gradient before
        clipping and momentum, the gradient of ``weight_decay / 2 |p|^2`` in the loss
        (BiT's 1e-4).
      decay_mask: regular expressions (``re.search``) of names that decay. By default
        kernels: no biases, norms, position embeddings, class token or registers, and no
        token embedding tables. So does big_vision; the ViT paper does not say.
      clip_norm: largest global norm of the gradient, or None.
      frozen: regular expressions of names that stay as they are: no update, no state, no
        share in the norm.
      lr_multipliers: (regular expression, factor); the first that is found counts.
      layer_decay: layer-wise decay of the rate, ``layer_decay ** (depth + 1 - layer)``
        with layer 0 = embedding, i + 1 = block i, depth + 1 = the rest (BEiT,
        arXiv:2106.08254); multiplies ``lr_multipliers``. None for none.
      mu_dtype: dtype of the first moment; updates are computed in float32.
      ema: decay of averaged parameters, e.g. 0.9999, or None.
      ema_warmup: see ``vitax.optim.ema.ema_update``.
    """

    lr: float
    weight_decay: float = 0.0
    weight_decay_scale: Literal["lr", "schedule", "gradient"] = "lr"
    decay_mask: tuple[str, ...] = KERNELS
    clip_norm: float | None = None
    frozen: tuple[str, ...] = ()
    lr_multipliers: tuple[tuple[str, float], ...] = ()
    layer_decay: float | None = None
    mu_dtype: Literal["float32", "bfloat16"] = "float32"
    ema: float | None = None
    ema_warmup: bool = False

    method: ClassVar[str]

    def __post_init__(self) -> None:
        require(math.isfinite(self.lr) and self.lr > 0, "lr", "a number above 0", self.lr)
        require(self.weight_decay >= 0, "weight_decay", "a number of at least 0", self.weight_decay)
        require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "a number above 0 or None", self.clip_norm)
        require(self.ema is None or 0 <= self.ema < 1, "ema", "from 0 to below 1, or None", self.ema)
        decay = self.layer_decay
        require(decay is None or 0 < decay <= 1, "layer_decay", "above 0 and at most 1, or None", decay)
        for pattern, factor in self.lr_multipliers:
            if not factor > 0:
                raise UserError(
                    f"optimizer.lr_multipliers: factor {factor!r} of {pattern!r} is not above 0; "
                    "to keep parameters as they are, name them in optimizer.frozen."
                )
        for name in ("b1", "b2", "decay", "momentum"):
            value = getattr(self, name, None)
            require(value is None or 0 <= value < 1, name, "from 0 to below 1", value)

    def describe(self, params_like: PyTree) -> list[LeafRule]:
        """What happens to each parameter, in the order of the leaves.

        Args:
          params_like: parameters or their shapes.

        Raises:
          UserError: a pattern that matches nothing, with the nearest names.
        """
        found = rules(
            params_like,
            decay_mask=self.decay_mask,
            weight_decay=self.weight_decay,
            frozen=self.frozen,
            lr_multipliers=self.lr_multipliers,
            layer_decay=self.layer_decay,
            # The default need not match where it is not used.
            check_decay_mask=bool(self.weight_decay) or self.decay_mask != KERNELS,
        )
        dims = {name: len(leaf.shape) for name, leaf in tree.named_leaves(params_like)}
        return [r if r.frozen else dataclasses.replace(r, method=self._method_of(r.name, dims[r.name])) for r in found]

    def make(self, learning_rate: Callable[[Any], Any], params_like: PyTree) -> optax.GradientTransformation:
        """Builds the transformation.

        Args:
          learning_rate: update number from 0 -> rate, with ``lr`` as its peak.
          params_like: parameters or their shapes, one leaf a layer.

        Returns:
          An optax transformation for exactly these names, whose ``update`` needs the
          parameters. ``init`` works on shapes too (``jax.eval_shape``).

        Raises:
          UserError: a pattern that matches nothing, with the nearest names.
        """
        by_name = {rule.name: rule for rule in self.describe(params_like)}

        # Masks are functions of the tree at hand, since leaves that are masked out
        # farther out are missing in it.
        def decays(params: PyTree) -> PyTree:
            return tree.map_named(lambda name, _: by_name[name].decays, params)

        def label(params: PyTree) -> PyTree:
            return tree.map_named(lambda name, _: "frozen" if by_name[name].frozen else "trained", params)

        parts: list[optax.GradientTransformation] = []
        decay = any(rule.decays for rule in by_name.values())
        if decay and self.weight_decay_scale == "gradient":
            parts.append(optax.add_decayed_weights(self.weight_decay, decays))
        if self.clip_norm is not None:
            parts.append(optax.clip_by_global_norm(self.clip_norm))
        parts.append(self._direction())
        if decay and self.weight_decay_scale == "lr":
            parts.append(optax.add_decayed_weights(self.weight_decay, decays))
        parts.append(self._after_decay())
        if any(rule.lr_multiplier != 1.0 and not rule.frozen for rule in by_name.values()):
            parts.append(_multiply({name: rule.lr_multiplier for name, rule in by_name.items()}))
        if decay and self.weight_decay_scale == "schedule":
            parts.append(optax.add_decayed_weights(self.weight_decay / self.lr, decays))
        parts.append(optax.scale_by_learning_rate(learning_rate))
        parts.append(self._after_rate())
        trained = optax.chain(*parts)
        if not any(rule.frozen for rule in by_name.values()):
            return trained
        return optax.partition({"trained": trained, "frozen": _stay()}, label)

    def _method_of(self, name: str, ndim: int) -> str:
        return self.method

    def _direction(self) -> optax.GradientTransformation:
        """Gradient -> direction of the update, before rate and decay."""
        raise NotImplementedError

    def _after_decay(self) -> optax.GradientTransformation:
        """What acts on direction plus decay (LAMB's trust ratio)."""
        return optax.identity()

    def _after_rate(self) -> optax.GradientTransformation:
        """What acts on the step itself (RMSProp's momentum)."""
        return optax.identity()


def require(good: bool, field: str, expected: str, value: Any) -> None:
    """Raises ``UserError`` about ``optimizer.FIELD`` unless ``good``."""
    if not good:
        raise UserError(f"optimizer.{field}: expected {expected}, got {value!r}.")


def _multiply(factors: dict[str, float]) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, _: tree.map_named(lambda name, u: u * factors[name], updates))


def _stay() -> optax.GradientTransformation:
    # Minus zero: x + (-0.0) is x to the bit, also where x is -0.0 (x + 0.0 is not).
    return optax.stateless(lambda updates, _: jax.tree.map(lambda u: jnp.full_like(u, -0.0), updates))
