"""Rules: logical axis names -> mesh axes, in one table outside the models."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from vitax.core import tree
from vitax.core.errors import UserError, suggest
from vitax.parallel.mesh import AXES

MeshAxes = str | tuple[str, ...] | None

# Megatron-style tensor parallelism inside a block (heads, mlp), ZeRO-3 along the
# width, the batch over everything that is not tensor.
DEFAULT_RULES: dict[str, MeshAxes] = {
    "batch": ("replica", "data", "fsdp"),
    "tokens": None,
    "embed": "fsdp",
    "mlp": "tensor",
    "heads": "tensor",
    "head_dim": None,
    "classes": "tensor",
    "vocab": "tensor",
    "pre_logits": "tensor",
    "patch_height": None,
    "patch_width": None,
    "channels": None,
}
LARGE_BYTES = 16 * 2**20


@dataclasses.dataclass(frozen=True)
class Rules:
    """Resolves logical names on a mesh.

    Attributes:
      table: logical name -> mesh axis, tuple of mesh axes, or None (replicated).
    """

    table: Mapping[str, MeshAxes] = dataclasses.field(default_factory=lambda: dict(DEFAULT_RULES))

    @classmethod
    def build(cls, overrides: Mapping[str, Any] | None = None) -> "Rules":
        """The default table with ``{logical name: mesh axis or axes or None}`` laid over it.

        Raises:
          UserError: an unknown logical name or mesh axis.
        """
        table = dict(DEFAULT_RULES)
        for name, axes in (overrides or {}).items():
            if name not in table:
                raise UserError(f'rules: unknown logical axis "{name}".{suggest(name, table)}')
            axes = tuple(axes) if isinstance(axes, list | tuple) else axes
            for axis in (axes,) if isinstance(axes, str) else axes or ():
                if axis not in AXES:
                    raise UserError(f'rules.{name}: unknown mesh axis "{axis}".{suggest(axis, AXES)}')
            table[name] = axes
        return cls(table)

    def spec(self, names: Sequence[str | None], shape: Sequence[int], mesh: Mesh, what: str) -> PartitionSpec:
        """The partition of one array.

        A dimension that the mesh axes do not divide stays whole (10 classes over 4
        devices): ``replicated`` reports it where that costs memory.

        Raises:
          UserError: a name that the table lacks, or one mesh axis wanted twice.
        """
        entries: list[MeshAxes] = []
        used: dict[str, str] = {}
        for name, length in zip(names, shape):
            if name is not None and name not in self.table:
                raise UserError(f'{what}: unknown logical axis "{name}".{suggest(name, self.table)}')
            axes = self.table[name] if name is not None else None
            axes = (axes,) if isinstance(axes, str) else axes or ()
            axes = tuple(a for a in axes if mesh.shape[a] > 1)
            for axis in axes:
                if axis in used:
                    raise UserError(
                        f'{what}: mesh axis "{axis}" would shard two dimensions ("{used[axis]}" and "{name}") '
                        f"of shape {tuple(shape)}. Change one of them in `rules`."
                    )
            if length % math.prod(mesh.shape[a] for a in axes):
                axes = ()
            used.update(dict.fromkeys(axes, str(name)))
            entries.append(axes[0] if len(axes) == 1 else axes or None)
        return PartitionSpec(*entries)

    def sharding(self, names: Sequence[str | None], shape: Sequence[int], mesh: Mesh, what: str) -> NamedSharding:
        """``spec`` as a ``NamedSharding``."""
        return NamedSharding(mesh, self.spec(names, shape, mesh, what))

    def resolver(self, mesh: Mesh) -> Any:
        """For ``core.axes.resolving``: activations keep ``fsdp`` for the batch alone."""

        def resolve(names: Sequence[str | None], shape: tuple[int, ...]) -> NamedSharding:
            # `embed` means the width of a parameter; in an activation the batch holds the fsdp axis.
            names = [None if n == "embed" else n for n in names]
            return self.sharding(names, shape, mesh, f"activation {tuple(names)}")

        return resolve

    def batch(self, shape: Sequence[int], mesh: Mesh) -> NamedSharding:
        """Axis 0 over all batch axes.

        Raises:
          UserError: the batch does not divide.
        """
        ways = self.batch_ways(mesh)
        if shape[0] % ways:
            raise UserError(
                f"data.batch_size: {shape[0]} examples do not divide over {ways} devices; "
                f"nearest that do: {shape[0] // ways * ways or ways} and {(shape[0] // ways + 1) * ways}."
            )
        return self.sharding(["batch", *[None] * (len(shape) - 1)], shape, mesh, "batch")

    def batch_ways(self, mesh: Mesh | AbstractMesh) -> int:
        """Over how many devices a batch is split."""
        axes = self.table["batch"]
        return math.prod(mesh.shape[a] for a in ((axes,) if isinstance(axes, str) else axes or ()))


def unbox(variables: Any) -> Any:
    """Strips the boxes that carry logical names."""
    return jax.tree.map(
        lambda x: x.value if isinstance(x, nn.Partitioned) else x,
        variables,
        is_leaf=lambda x: isinstance(x, nn.Partitioned),
    )


def shardings_of(boxed: Any, rules: Rules, mesh: Mesh) -> Any:
    """Shardings for a tree of (boxed) variables; unboxed leaves are replicated."""

    def of(path: Any, leaf: Any) -> NamedSharding:
        if isinstance(leaf, nn.Partitioned):
            return rules.sharding(leaf.names, leaf.value.shape, mesh, f"parameter {tree.name_of(path)}")
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(of, boxed, is_leaf=lambda x: isinstance(x, nn.Partitioned))


def replicated(abstract: Any, shardings: Any, mesh: Mesh | AbstractMesh) -> list[str]:
    """Names the large leaves that stay whole on a mesh that could shard them."""
    if mesh.shape["fsdp"] * mesh.shape["tensor"] == 1:
        return []
    named = zip(tree.named_leaves(abstract), jax.tree.leaves(shardings))
    return [
        f"{name} {tree.describe(leaf)}"
        for (name, leaf), sharding in named
        if sharding.is_fully_replicated and leaf.size * leaf.dtype.itemsize >= LARGE_BYTES
    ]
