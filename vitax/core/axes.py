"""Logical axis names on activations, resolved by whoever traces the program.

Layers name the axes of an activation (``"batch", "tokens", "embed"``); what they
mean on a mesh is known outside (``vitax.parallel.rules``). A context variable
carries the resolver during tracing, so layers stay free of meshes and run
unchanged without one. An explicit ``NamedSharding`` is used rather than Flax's
``with_logical_constraint``: that one does nothing, silently, unless a global mesh
is set, and a global mesh cannot be set for devices that are only described (a
program compiled ahead of time for another machine).
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence

import jax

Resolver = Callable[[Sequence[str | None], tuple[int, ...]], jax.sharding.Sharding | None]

_resolver: contextvars.ContextVar[Resolver | None] = contextvars.ContextVar("axis_resolver", default=None)


@contextlib.contextmanager
def resolving(resolver: Resolver) -> Iterator[None]:
    """Within this context ``constrain`` resolves names with ``resolver(names, shape)``."""
    token = _resolver.set(resolver)
    try:
        yield
    finally:
        _resolver.reset(token)


def resolve(names: Sequence[str | None], shape: tuple[int, ...]) -> jax.sharding.Sharding | None:
    """The sharding of an array, or None where no resolver is set or it declines.

    For what the compiler cannot split by itself, such as a hand-written kernel: a
    ``NamedSharding`` holds the mesh and the mesh axes of each axis.
    """
    resolver = _resolver.get()
    return None if resolver is None else resolver(names, shape)


def constrain(x: jax.Array, names: Sequence[str | None]) -> jax.Array:
    """Constrains the sharding of ``x``; one logical name (or None) an axis.

    Identity where no resolver is set, or where it returns None.
    """
    if len(names) != x.ndim:
        raise ValueError(f"{len(names)} axis names {tuple(names)} for an array of shape {x.shape}.")
    sharding = resolve(names, x.shape)
    return x if sharding is None else jax.lax.with_sharding_constraint(x, sharding)
