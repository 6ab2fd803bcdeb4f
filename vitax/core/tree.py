"""Trees with named leaves: names, pattern masks, differences."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

PyTree = Any


def name_of(path: Sequence[Any]) -> str:
    """``("encoder", "norm", "scale")`` as a key path -> ``"encoder/norm/scale"``."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """All leaves with their names, in the order of ``jax.tree.leaves``."""
    return [(name_of(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def map_named(fn: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """Like ``jax.tree.map`` with ``fn(name, leaf, ...)``."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: fn(name_of(path), *leaves), tree, *rest)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether any regular expression is found in the name (``re.search``)."""
    return any(re.search(p, name) for p in patterns)


def size(tree: PyTree) -> int:
    """Number of elements in all leaves (arrays or shape structs)."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(tree))


def num_bytes(tree: PyTree) -> int:
    """Bytes in all leaves (arrays or shape structs)."""
    return sum(int(leaf.size) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def describe(leaf: Any) -> str:
    """``float32[768,12,64]`` for an array or shape struct."""
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def difference(expected: PyTree, actual: PyTree) -> list[str]:
    """Lines that say where two trees differ in names, shapes or dtypes ([] = they do not)."""
    want = {n: describe(x) for n, x in named_leaves(expected)}
    have = {n: describe(x) for n, x in named_leaves(actual)}
    lines = [f"missing     {n}: expected {want[n]}" for n in want if n not in have]
    lines += [f"unexpected  {n}: found {have[n]}" for n in have if n not in want]
    lines += [f"mismatched  {n}: expected {want[n]}, found {have[n]}" for n in want if n in have and want[n] != have[n]]
    return lines
