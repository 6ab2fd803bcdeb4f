"""What the forward pass of any network leaves for its backward pass, counted on its jaxpr.

For networks that are no stack of equal transformer blocks (``cost.memory`` has those).
The results of convolutions and matrix products are counted; elementwise work between
them (norms, activations, gates), which compilers fuse into what reads it and make again
in the backward pass, is not.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax

# Examples in the trace: a leading axis of this length marks an activation, and no kernel has it.
_EXAMPLES = 13
_PRODUCTS = ("conv_general_dilated", "dot_general")


@dataclasses.dataclass(frozen=True)
class Activations:
    """Bytes of one example, in a network of blocks.

    Attributes:
      outside: results of products outside of blocks.
      inputs: of all blocks.
      inside: results of products in blocks.
      matrices: of ``inside``, those of matrix products.
      largest_block: of ``inside``, the most of one block.
      largest: the largest array.
      blocks: how many.
    """

    outside: int
    inputs: int
    inside: int
    matrices: int
    largest_block: int
    largest: int
    blocks: int


def count(fn: Callable[[Any, Any], Any], variables: Any, example: jax.ShapeDtypeStruct) -> Activations:
    """Counts a forward pass.

    Args:
      fn: (variables, batch of inputs) -> anything; each ``jax.checkpoint`` in it is a block.
      variables: arrays or their shapes.
      example: one input, without a batch axis.
    """
    batch = jax.ShapeDtypeStruct((_EXAMPLES, *example.shape), example.dtype)
    found = list(_arrays(jax.make_jaxpr(fn)(variables, batch).jaxpr, None))
    blocks: dict[int, int] = {}
    for size, block, kind in found:
        if block is not None:
            blocks[block] = blocks.get(block, 0) + (size if kind != "input" else 0)
    return Activations(
        outside=sum(size for size, block, _ in found if block is None),
        inputs=sum(size for size, _, kind in found if kind == "input"),
        inside=sum(blocks.values()),
        matrices=sum(size for size, block, kind in found if block is not None and kind == "dot_general"),
        largest_block=max(blocks.values(), default=0),
        largest=max((size for size, _, _ in found), default=0),
        blocks=len(blocks),
    )


def _arrays(jaxpr: Any, block: int | None) -> Iterator[tuple[int, int | None, str]]:
    """(bytes of an example, block, "input" or the primitive that made it)."""
    for eqn in jaxpr.eqns:
        name, inside = eqn.primitive.name, block
        if name in _PRODUCTS:
            yield from ((n, block, name) for n in map(_bytes, eqn.outvars) if n)
        elif name in ("checkpoint", "remat2"):
            inside = id(eqn)
            yield from ((n, inside, "input") for n in map(_bytes, eqn.invars) if n)
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _arrays(inner, inside)


def _bytes(var: Any) -> int:
    """Of one example; 0 for what is no activation."""
    shape = var.aval.shape
    if len(shape) < 2 or shape[0] != _EXAMPLES:
        return 0
    return math.prod(shape[1:]) * var.aval.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Traced:
    """What ``cost.memory.Stack`` is to a transformer, of a network that was counted.

    Attributes:
      found: of one example.
      examples: of one microbatch on this device.
      itemsize: bytes of an activation: 2 for bfloat16.
      remat: name of the policy.
      scanned: blocks run in loops.
    """

    found: Activations
    examples: int
    itemsize: int
    remat: str
    scanned: bool

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return max(self.found.blocks, 1)

    def kept_bytes(self) -> int:
        """What the forward pass leaves for the backward pass: the activations."""
        f = self.found
        inside = {
            "none": f.inside,
            "full": f.inputs,
            # Both save matrix products, here the convolutions of 1 x 1, and no others.
            "dots": f.inputs + f.matrices,
            "dots_with_no_batch_dims": f.inputs + f.matrices,
        }[self.remat]
        return self.examples * (f.outside + inside)

    def everything_bytes(self) -> int:
        """``kept_bytes`` without remat."""
        return self.examples * (self.found.outside + self.found.inside)

    def in_flight_bytes(self) -> int:
        """What one block's backward pass needs on top: itself, made again, and two gradients."""
        again = 0 if self.remat == "none" else self.found.largest_block
        return self.examples * (again + 2 * self.found.largest)

    def stream_bytes(self) -> int:
        """What enters the blocks, over all of them."""
        return self.examples * self.found.inputs
