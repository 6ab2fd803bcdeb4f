"""Counts the matrix products and convolutions of a program, from its jaxpr.

The compiler's own count is no help here: it counts the body of a scan once.
Two figures use this walk. *Model FLOPs*: 3 x forward, what the papers and MFU
mean. *Executed FLOPs*: the walk of the whole train step with its recomputation
(HFU). Elementwise work is in neither.

Trap: vision papers print multiply-accumulates (MACs), language papers and MFU
count 2 FLOPs for each; ``Flops`` carries both, named.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

from vitax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Flops:
    """A count of multiply-accumulates.

    Attributes:
      macs: multiply-accumulates of matrix products and convolutions.
    """

    macs: int

    @property
    def flops(self) -> int:
        """Floating-point operations: 2 a multiply-accumulate."""
        return 2 * self.macs


def count(fn: Callable[..., Any], *args: Any) -> Flops:
    """Walks the jaxpr of ``fn`` at these arguments.

    Scans count their body times their length, conditionals their dearest branch,
    ``jit``, remat and custom derivatives their body as often as it stands in the
    program: rematerialised work in a gradient is counted again. A Pallas kernel counts
    its body once for each step of its grid, a ``shard_map`` once for each device that
    runs it. Work whose result nothing reads is not counted.

    Args:
      fn: a function that JAX can trace.
      *args: arrays or ``jax.ShapeDtypeStruct`` trees.

    Raises:
      UserError: a ``while`` with a matrix product in it, whose number of rounds is not
        known, or a kernel with one whose grid is not.
    """
    return count_jaxpr(jax.make_jaxpr(fn)(*args))


def count_jaxpr(closed: core.ClosedJaxpr) -> Flops:
    """``count`` of a program that is already traced (``jax.jit(fn).trace(...).jaxpr``).

    Shapes in it are global: the count is of the whole mesh.
    """
    return Flops(_walk(closed.jaxpr))


def forward_flops(model: Any, variables: Any, *inputs: Any, **kwargs: Any) -> Flops:
    """Count of one forward pass ``model.apply(variables, *inputs, **kwargs)`` for its logits and features."""

    def forward(variables: Any, *inputs: Any) -> Any:
        output = model.apply(variables, *inputs, **kwargs)
        return output.logits, output.features

    return count(forward, variables, *inputs)


def model_flops(model: Any, variables: Any, *inputs: Any, **kwargs: Any) -> int:
    """FLOPs of a train step by the convention of the papers: 3 x forward, no remat.

    Reference: ViT, arXiv:2010.11929, table 6; PaLM, arXiv:2204.02311, appendix B.
    """
    return 3 * forward_flops(model, variables, *inputs, **kwargs).flops


def _walk(jaxpr: Any, used: Sequence[bool] | None = None) -> int:
    """Counts the equations whose results are read; the compiler drops the rest too.

    Args:
      jaxpr: what to count.
      used: for each output of the jaxpr, whether it is read; None = all.
    """
    live = {v for i, v in enumerate(jaxpr.outvars) if isinstance(v, core.Var) and (used is None or used[i])}
    total = 0
    for eqn in reversed(jaxpr.eqns):
        reads = [v in live for v in eqn.outvars]
        if any(reads) or eqn.effects:
            live.update(v for v in eqn.invars if isinstance(v, core.Var))
            total += _equation(eqn, reads)
    return total


def _equation(eqn: Any, reads: Sequence[bool]) -> int:
    name = eqn.primitive.name
    if name == "dot_general":
        return _dot(eqn)
    if name == "conv_general_dilated":
        return _conv(eqn)
    bodies = _bodies(eqn.params)
    if not bodies:
        return 0
    if name == "scan":
        # Every output stays: a round reads what the round before it carried.
        return int(eqn.params["length"]) * sum(map(_walk, bodies))
    if name == "while":
        total = sum(map(_walk, bodies))
        if total:
            raise UserError(
                "cost: a `while` loop holds matrix products, and how often it runs is not known before it does. "
                "Use a loop of fixed length (jax.lax.scan, or fori_loop with constant bounds)."
            )
        return total
    if name == "pallas_call":
        return _kernel(eqn, sum(map(_walk, bodies)))
    if name == "shard_map":
        # Shapes in it are those of one shard; devices that share one each do it all.
        shards = math.prod(eqn.params["mesh"].shape[axis] for axis in eqn.params["newly_manual_axes"])
        return shards * sum(_walk(body, reads) for body in bodies)
    counts = [_walk(body, reads if len(body.outvars) == len(reads) else None) for body in bodies]
    return max(counts) if name == "cond" else sum(counts)


def _kernel(eqn: Any, step: int) -> int:
    """A kernel of ``step`` in each step of its grid, every one of which runs: results are written by reference."""
    grid = eqn.params["grid_mapping"].grid
    if step and not all(isinstance(n, int) for n in grid):
        raise UserError(
            f"cost: the grid {grid} of a Pallas kernel with matrix products is not known before it runs. "
            "Give it constant bounds."
        )
    return math.prod(grid) * step if step else 0


def _bodies(params: dict[str, Any]) -> list[Any]:
    """The jaxprs in an equation's parameters; derivative rules are thunks, not jaxprs, and stay out."""
    values = [v for value in params.values() for v in (value if isinstance(value, tuple | list) else (value,))]
    bodies = [v.jaxpr if isinstance(v, core.ClosedJaxpr) else v for v in values]
    return [v for v in bodies if isinstance(v, core.Jaxpr)]


def _dot(eqn: Any) -> int:
    (contracting, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    return math.prod(eqn.outvars[0].aval.shape) * math.prod(left[i] for i in contracting)


def _conv(eqn: Any) -> int:
    # The kernel's input axis is already one group's; padding counts as work, as in the papers.
    kernel, spec = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"].rhs_spec
    window = math.prod(kernel[i] for i in spec[2:])
    return math.prod(eqn.outvars[0].aval.shape) * window * kernel[spec[1]]
