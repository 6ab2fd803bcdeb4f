"""Optimisers: a spec -> an optax transformation, built from optax's parts.

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
import re
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

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
        _require(math.isfinite(self.lr) and self.lr > 0, "lr", "a number above 0", self.lr)
        _require(self.weight_decay >= 0, "weight_decay", "a number of at least 0", self.weight_decay)
        _require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "a number above 0 or None", self.clip_norm)
        _require(self.ema is None or 0 <= self.ema < 1, "ema", "from 0 to below 1, or None", self.ema)
        decay = self.layer_decay
        _require(decay is None or 0 < decay <= 1, "layer_decay", "above 0 and at most 1, or None", decay)
        for pattern, factor in self.lr_multipliers:
            if not factor > 0:
                raise UserError(
                    f"optimizer.lr_multipliers: factor {factor!r} of {pattern!r} is not above 0; "
                    "to keep parameters as they are, name them in optimizer.frozen."
                )
        for name in ("b1", "b2", "momentum"):
            value = getattr(self, name, None)
            _require(value is None or 0 <= value < 1, name, "from 0 to below 1", value)

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


def _require(good: bool, field: str, expected: str, value: Any) -> None:
    if not good:
        raise UserError(f"optimizer.{field}: expected {expected}, got {value!r}.")


def _multiply(factors: dict[str, float]) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, _: tree.map_named(lambda name, u: u * factors[name], updates))


def _stay() -> optax.GradientTransformation:
    # Minus zero: x + (-0.0) is x to the bit, also where x is -0.0 (x + 0.0 is not).
    return optax.stateless(lambda updates, _: jax.tree.map(lambda u: jnp.full_like(u, -0.0), updates))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """``v = momentum v + g``; ``u = v``, or ``g + momentum v`` with nesterov.

    The rate is outside the trace, as in PyTorch. ViT fine-tunes with momentum 0.9 and no
    decay (Table 4), BiT pre-trains with a coupled decay of 1e-4 (``gradient``).

    Attributes:
      momentum: 0 keeps no state.
      nesterov: look ahead.
    """

    momentum: float = 0.9
    nesterov: bool = False
    method: ClassVar[str] = "sgd"

    def _direction(self) -> optax.GradientTransformation:
        if not self.momentum:
            return optax.identity()
        return optax.trace(self.momentum, nesterov=self.nesterov, accumulator_dtype=jnp.dtype(self.mu_dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with bias correction and, by default, decoupled decay.

    ``u = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)``, t from 1.

    Reference: Kingma and Ba, arXiv:1412.6980, algorithm 1; Loshchilov and Hutter,
    arXiv:1711.05101.

    Attributes:
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    method: ClassVar[str] = "adamw"

    def _direction(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, self.eps, mu_dtype=jnp.dtype(self.mu_dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam(AdamW):
    """Adam as published, where decay is an L2 term of the loss (``gradient`` by default)."""

    weight_decay_scale: Literal["lr", "schedule", "gradient"] = "gradient"
    method: ClassVar[str] = "adam"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adafactor(Optimizer):
    """The modified Adafactor of Scaling ViT: Adam at about half its memory or less.

    The second moment of a leaf with two axes of at least ``min_dim_size_to_factor`` is
    kept as the means over each of its two largest axes (other axes stay, as heads do); its
    decay is ``min(b2_cap, 1 - t^-decay_exponent)``. Absolute rates: neither relative steps
    nor scaling by parameters. The first moment has no bias correction and, by default, is
    bfloat16.

    Reference: Shazeer and Stern, arXiv:1804.04235; Zhai et al., arXiv:2106.04560, section
    3.4. big_vision's ``scale_by_adafactor`` has the same order (statistics, clip,
    momentum) and ``clip_rms = None`` by default; its recipes clip the global norm instead.

    Attributes:
      momentum: decay of the first moment; 0 for none.
      decay_exponent: see above.
      b2_cap: largest decay of the second moment; lets it keep forgetting.
      clip_rms: largest root mean square of a leaf's update, before momentum; None for none.
      min_dim_size_to_factor: smaller axes are not factored.
      eps: added to squared gradients.
    """

    momentum: float = 0.9
    decay_exponent: float = 0.8
    b2_cap: float = 0.999
    clip_rms: float | None = 1.0
    min_dim_size_to_factor: int = 32
    eps: float = 1e-30
    mu_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    method: ClassVar[str] = "adafactor"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.clip_rms is None or self.clip_rms > 0, "clip_rms", "a number above 0 or None", self.clip_rms)

    def _direction(self) -> optax.GradientTransformation:
        def decay(count: Any, exponent: Any) -> jax.Array:
            return jnp.minimum(self.b2_cap, 1.0 - (jnp.asarray(count, jnp.float32) + 1.0) ** -exponent)

        parts = [
            optax.scale_by_factored_rms(
                decay_rate=self.decay_exponent,
                min_dim_size_to_factor=self.min_dim_size_to_factor,
                epsilon=self.eps,
                decay_rate_fn=decay,
            )
        ]
        if self.clip_rms is not None:
            parts.append(optax.clip_by_block_rms(self.clip_rms))
        if self.momentum:
            parts.append(optax.ema(self.momentum, debias=False, accumulator_dtype=jnp.dtype(self.mu_dtype)))
        return optax.chain(*parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LAMB(AdamW):
    """Adam whose update, decay included, is scaled a leaf to the norm of its parameters.

    ``u' = |p| / |u + weight_decay p| (u + weight_decay p)``; the ratio is 1 where either
    norm is 0. It acts on every leaf, biases and norms too (optax; the authors' code
    leaves these out), and is not bounded.

    Reference: You et al., arXiv:1904.00962, algorithm 2.
    """

    eps: float = 1e-6
    method: ClassVar[str] = "lamb"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_decay_scale == "schedule":
            raise UserError(
                'optimizer.weight_decay_scale: "schedule" has no meaning for lamb, whose decay is inside the trust '
                'ratio; use "lr" (as published) or "gradient".'
            )

    def _after_decay(self) -> optax.GradientTransformation:
        return optax.scale_by_trust_ratio()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lion(Optimizer):
    """``u = sign(b1 m + (1 - b1) g)``, then ``m = b2 m + (1 - b2) g``.

    Wants a rate 3 to 10 times below AdamW's and a decay as much above.

    Reference: Chen et al., arXiv:2302.06675, algorithm 2.

    Attributes:
      b1: weight of the momentum in the update.
      b2: decay of the momentum.
    """

    b1: float = 0.9
    b2: float = 0.99
    method: ClassVar[str] = "lion"

    def _direction(self) -> optax.GradientTransformation:
        return optax.scale_by_lion(self.b1, self.b2, mu_dtype=jnp.dtype(self.mu_dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Muon(Optimizer):
    """Momentum made orthogonal a matrix (Newton-Schulz) on kernels; AdamW on the rest.

    The kernels of a layer are seen as the one matrix that they are, whatever their shape:
    query, key and value [D, H, K] as D x HK, attention output [H, K, D] as HK x D,
    convolutions [h, w, I, O] as hwI x O. Embeddings and the head go to AdamW.

    Reference: Jordan et al., 2024 (blog post "Muon"); Liu et al., arXiv:2502.16982, for
    the scale.

    Attributes:
      momentum: decay of the momentum.
      nesterov: look ahead.
      ns_steps: Newton-Schulz iterations.
      adam: regular expressions of kernels that AdamW takes.
      consistent_rms: root mean square of an update (with a scale of ``consistent_rms
        sqrt(max(in, out))``), 0.2 being about AdamW's, so that one rate and decay serve
        both; None for the original scale ``sqrt(max(1, out / in))``.
      b1: of AdamW.
      b2: of AdamW.
      eps: of AdamW.
    """

    momentum: float = 0.95
    nesterov: bool = True
    ns_steps: int = 5
    adam: tuple[str, ...] = (r"(^|/)head/", r"(^|/)\w*embedding\w*/")
    consistent_rms: float | None = 0.2
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    method: ClassVar[str] = "muon"

    def _method_of(self, name: str, ndim: int) -> str:
        kernel = ndim >= 2 and tree.matches(name, KERNELS) and not tree.matches(name, self.adam)
        return "muon" if kernel else "adamw"

    def _direction(self) -> optax.GradientTransformation:
        dtype = jnp.dtype(self.mu_dtype)

        def label(params: PyTree) -> PyTree:
            return tree.map_named(lambda name, x: self._method_of(name, x.ndim), params)

        def dimensions(params: PyTree) -> PyTree:
            return tree.map_named(lambda name, x: matrix_axes(name, x.ndim), params)

        orthogonal = scale_by_muon(
            ns_steps=self.ns_steps,
            beta=self.momentum,
            mu_dtype=dtype,
            nesterov=self.nesterov,
            weight_dimension_numbers=dimensions,
        )
        scale = optax.stateless(lambda updates, _: tree.map_named(lambda n, u: u * self._scale(n, u.shape), updates))
        adam = optax.scale_by_adam(self.b1, self.b2, self.eps, mu_dtype=dtype)
        return optax.partition({"muon": optax.chain(orthogonal, scale), "adamw": adam}, label)

    def _scale(self, name: str, shape: tuple[int, ...]) -> float:
        axes = matrix_axes(name, len(shape))
        fan_in = math.prod(shape[: len(axes.reduction_axis)])
        fan_out = math.prod(shape) // fan_in
        if self.consistent_rms is None:
            return math.sqrt(max(1.0, fan_out / fan_in))
        return self.consistent_rms * math.sqrt(max(fan_in, fan_out))


def matrix_axes(name: str, ndim: int) -> MuonDimensionNumbers:
    """Which axes of a kernel are the inputs and which the outputs of its matrix."""
    split = 1 if re.search(r"(^|/)(query|key|value|qkv)/kernel$", name) else ndim - 1
    return MuonDimensionNumbers(tuple(range(split)), tuple(range(split, ndim)))


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "adafactor": Adafactor,
    "lamb": LAMB,
    "lion": Lion,
    "muon": Muon,
}
