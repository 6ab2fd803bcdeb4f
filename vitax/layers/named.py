"""Initialisers that carry the logical names of a parameter's axes."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn


def named(init: Callable[..., Any], axes: Sequence[str | None]) -> Callable[..., Any]:
    """``init`` whose result is boxed with logical names, one an axis (``vitax.parallel.rules`` reads them)."""
    return nn.with_logical_partitioning(init, tuple(axes))
