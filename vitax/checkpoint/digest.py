"""Layout-independent digests: one number an array, whatever its sharding.

Orbax keeps no checksum of contents: a flipped bit in a data file restores in
silence. Each array is therefore summarised by a 64-bit position-mixed sum, equal on
any mesh and in NumPy, computed on the device (about 0.08 s a GB on two CPU cores)
and stored with the checkpoint. It is not cryptographic.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitax.core import tree

_CONSTANTS = ((0x85EBCA6B, 0xC2B2AE35, 0x9E3779B1), (0x7FEB352D, 0x846CA68B, 0x2C1B3C6D))
_CHUNK = 1 << 20


def _mix(h: Any, a: int, b: int, xp: Any) -> Any:
    h = h ^ (h >> xp.uint32(16))
    h = h * xp.uint32(a)
    h = h ^ (h >> xp.uint32(13))
    h = h * xp.uint32(b)
    return h ^ (h >> xp.uint32(16))


def _device_digest(x: jax.Array) -> jax.Array:
    """uint32[2] of one array."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if x.dtype == jnp.bool_:
        words = x.astype(jnp.uint32)
    elif x.dtype.itemsize == 8:
        words = jax.lax.bitcast_convert_type(x, jnp.uint32)  # a last axis of two
    else:
        unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
        words = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    position = jnp.zeros(words.shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(words.ndim)):
        position += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= words.shape[axis]
    mixed = tuple(_mix(words + position * jnp.uint32(c) + jnp.uint32(c), a, b, jnp) for a, b, c in _CONSTANTS)
    # One variadic reduce fuses; two sums would materialise the mixed words.
    zero = (jnp.uint32(0),) * 2
    total = jax.lax.reduce(mixed, zero, lambda p, q: (p[0] + q[0], p[1] + q[1]), tuple(range(words.ndim)))
    return jnp.stack(total)


_digest_leaves = jax.jit(lambda leaves: [_device_digest(x) for x in leaves])


def numpy_digest(x: np.ndarray) -> str:
    """The same digest from host memory, without JAX devices."""
    x = np.ascontiguousarray(x).reshape(-1)
    if x.dtype == np.bool_:
        words = x.astype(np.uint32)
    elif x.dtype.itemsize == 8:
        words = x.view(np.uint32)
    else:
        words = x.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[x.dtype.itemsize])
    sums = [0, 0]
    with np.errstate(over="ignore"):
        for start in range(0, words.size, _CHUNK):
            part = words[start : start + _CHUNK].astype(np.uint32)
            position = np.arange(start, start + part.size, dtype=np.uint64).astype(np.uint32)
            for k, (a, b, c) in enumerate(_CONSTANTS):
                mixed = _mix(part + position * np.uint32(c) + np.uint32(c), a, b, np)
                sums[k] = (sums[k] + int(mixed.sum(dtype=np.uint64))) % 2**32
    return f"{sums[0] << 32 | sums[1]:016x}"


def manifest(state: Any) -> dict[str, str]:
    """Leaf name -> ``"float32[3,4] 0123456789abcdef"`` for a tree of device arrays."""
    named = tree.named_leaves(state)
    sums = jax.device_get(_digest_leaves([leaf for _, leaf in named]))
    return {name: f"{tree.describe(leaf)} {int(h[0]) << 32 | int(h[1]):016x}" for (name, leaf), h in zip(named, sums)}


def shape_of(text: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype in a value of a manifest, ``"float32[3,4] 0123456789abcdef"``."""
    dtype, _, shape = text.split(" ")[0].rstrip("]").partition("[")
    return tuple(int(n) for n in shape.split(",") if n), jnp.dtype(dtype)


def combine(digests: Mapping[str, str]) -> str:
    """One digest over a whole manifest: 16 hex digits."""
    lines = "".join(f"{name} {digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
