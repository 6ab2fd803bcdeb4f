"""What hand-written attention kernels share: where they run, and what they are given of a mesh."""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vitax.core import axes
from vitax.core.errors import UserError

Array = jax.Array

KernelName = Literal["xla", "pallas", "splash", "cudnn"]
# Those that take masks.
MaskedKernelName = Literal["xla", "splash", "cudnn"]
MEND = 'Set model.attention_kernel to "xla", which runs everywhere.'
# Platform of JAX's devices -> what they are called.
_PLATFORMS = {"tpu": "TPUs", "gpu": "GPUs"}

_interpreted: contextvars.ContextVar[bool] = contextvars.ContextVar("kernels_interpreted", default=False)


@contextlib.contextmanager
def interpreting() -> Iterator[None]:
    """Within this context kernels run in Pallas' interpreter, on any platform: slowly, for tests."""
    token = _interpreted.set(True)
    try:
        yield
    finally:
        _interpreted.reset(token)


def interpreted() -> bool:
    """Whether ``interpreting`` is in force."""
    return _interpreted.get()


def sharding_of(query: Array, num_heads: int, head_dim: int) -> Any:
    """Of [B, T, N, K] by the resolver in force (see ``core.axes``), or None."""
    return axes.resolve(("batch", "tokens", "heads", "head_dim"), (*query.shape[:2], num_heads, head_dim))


def devices_of(kernel: str, platform: str, query: Array, sharding: Any) -> list[Any]:
    """Those that will run a kernel, as far as that is known while tracing.

    Raises:
      UserError: they are of another platform.
    """
    if isinstance(sharding, NamedSharding):
        found = list(sharding.mesh.devices.flat) if isinstance(sharding.mesh, Mesh) else []
    else:
        found = [] if isinstance(query, jax.core.Tracer) else list(query.devices())
    if found and found[0].platform != platform and not interpreted():
        raise UserError(
            f'model.attention_kernel: "{kernel}" is a kernel for {_PLATFORMS[platform]}, and the devices are of '
            f'platform "{found[0].platform}". {MEND}'
        )
    return found


def on_each_device(
    kernel: str,
    attend: Callable[..., Array],
    sharding: Any,
    arrays: tuple[Array, ...],
    beside: tuple[Array, ...] = (),
) -> Array:
    """Runs ``attend(*arrays, *beside, ways)`` on each device's examples and heads.

    Args:
      kernel: its name, for messages.
      attend: what one device does; ``ways`` is over how many the heads are divided.
      sharding: of ``sharding_of``; other than a ``NamedSharding``, there is one device.
      arrays: query, key and value, [B, T or S, N, K] or [B, T or S, N*K].
      beside: arrays of leading axis B or 1, whole in the others.

    Raises:
      UserError: tokens or head_dim are sharded.
    """
    if not isinstance(sharding, NamedSharding):
        return attend(*arrays, *beside, 1)
    batch, tokens, heads, within = (*sharding.spec, None, None, None, None)[:4]
    if tokens is not None or within is not None:
        raise UserError(
            f'model.attention_kernel: "{kernel}" wants all tokens of a head on one device, and the rules shard '
            f'{"tokens" if tokens is not None else "head_dim"} over mesh axis "{tokens or within}". '
            f"Leave them whole in `rules`. {MEND}"
        )
    mesh, spec = sharding.mesh, PartitionSpec(batch, None, heads)
    ways = math.prod(mesh.shape[axis] for axis in ((heads,) if isinstance(heads, str) else heads or ()))
    of_beside = tuple(PartitionSpec(batch if x.shape[0] == arrays[0].shape[0] else None) for x in beside)
    # The compiler cannot split a kernel; its results are not marked with the axes they vary over.
    return jax.shard_map(
        lambda *a: attend(*a, ways),
        mesh=mesh,
        in_specs=(*(spec,) * len(arrays), *of_beside),
        out_specs=spec,
        check_vma=False,
    )(*arrays, *beside)
