"""Optimisers by name; ``vitax.optim.base`` says what they share and in which order things happen."""

import dataclasses
import math
import re
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from vitax.core import tree
from vitax.core.errors import UserError
from vitax.core.types import PyTree
from vitax.optim.base import KERNELS, Optimizer, require


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
class RMSProp(Optimizer):
    """``v = decay v + (1 - decay) g^2``; ``m = momentum m + lr g / sqrt(v + eps)``; ``p -= m``.

    As TensorFlow has it, and unlike PyTorch: eps inside the root, v from 1 (which keeps
    the first steps small), and the rate inside the momentum. EfficientNet trains with
    decay 0.9, momentum 0.9, eps 1e-3 and a weight decay of 1e-5, which is an L2 term of
    the loss: here it is always coupled.

    Reference: Tieleman and Hinton, 2012, lecture 6.5; EfficientNet, arXiv:1905.11946,
    section 5.2. The eps is that of the authors' code.

    Attributes:
      decay: of the second moment.
      momentum: 0 keeps no state of it.
      eps: added to the second moment.
    """

    decay: float = 0.9
    momentum: float = 0.9
    eps: float = 1e-3
    weight_decay_scale: Literal["lr", "schedule", "gradient"] = "gradient"
    method: ClassVar[str] = "rmsprop"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_decay_scale != "gradient":
            raise UserError(
                f'optimizer.weight_decay_scale: "{self.weight_decay_scale}" would go through the momentum of rmsprop, '
                'which holds the rate already; use "gradient" (as published).'
            )

    def _direction(self) -> optax.GradientTransformation:
        return optax.scale_by_rms(self.decay, self.eps, initial_scale=1.0, eps_in_sqrt=True)

    def _after_rate(self) -> optax.GradientTransformation:
        if not self.momentum:
            return optax.identity()
        return optax.trace(self.momentum, accumulator_dtype=jnp.dtype(self.mu_dtype))


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
        require(self.clip_rms is None or self.clip_rms > 0, "clip_rms", "a number above 0 or None", self.clip_rms)

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
    "rmsprop": RMSProp,
    "adam": Adam,
    "adamw": AdamW,
    "adafactor": Adafactor,
    "lamb": LAMB,
    "lion": Lion,
    "muon": Muon,
}
