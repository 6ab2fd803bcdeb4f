"""``Mean``: the only averaging in vitax."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

Array = jax.Array


@flax.struct.dataclass
class Mean:
    """A sum and the weight it was taken over, both float32 scalars.

    Sums of ``Mean`` are exact over microbatches, hosts and padded tails; an
    average of averages is not. Divide once, at the end, with ``compute``.
    """

    total: Array
    weight: Array

    @classmethod
    def of(cls, values: Array, mask: Array | None = None) -> "Mean":
        """Sums ``values`` [B, ...] over the examples where ``mask`` [B] is True."""
        values = values.astype(jnp.float32)
        if mask is None:
            return cls(values.sum(), jnp.float32(values.size))
        mask = jnp.broadcast_to(mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim)), values.shape)
        # where, not a product: a NaN or inf in a padded row must not leak into the sum.
        return cls(jnp.where(mask, values, 0.0).sum(), mask.sum().astype(jnp.float32))

    @classmethod
    def zero(cls) -> "Mean":
        return cls(jnp.float32(0.0), jnp.float32(0.0))

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.weight + other.weight)

    def compute(self) -> Array:
        """total / weight; NaN where nothing was counted."""
        return self.total / self.weight


def add(a: Mapping[str, Mean], b: Mapping[str, Mean]) -> dict[str, Mean]:
    """Adds two dictionaries of means with the same names."""
    if a.keys() != b.keys():
        raise ValueError(f"Metrics differ: {sorted(a)} against {sorted(b)}.")
    return {name: a[name] + b[name] for name in a}


def compute(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Fetches a dictionary of means (or scalars) to Python floats."""
    host = jax.device_get(dict(metrics))
    return {k: float(v.total) / float(v.weight) if isinstance(v, Mean) else float(v) for k, v in host.items()}
