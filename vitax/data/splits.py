"""Slices of splits, ``"train[:90%]"``, and class-balanced subsets."""

import re

import numpy as np

from vitax.core.errors import UserError
from vitax.data import order

_BOUND = r"(-?\d+%?)?"
_SPLIT = re.compile(rf"^([^\[\]]*)(?:\[{_BOUND}:{_BOUND}\])?$")


def parse(split: str, where: str) -> tuple[str, tuple[str, str] | None]:
    """``"train[:90%]"`` -> ``("train", ("", "90%"))``; ``"train"`` -> ``("train", None)``.

    Raises:
      UserError: not of the form ``name``, ``name[a:b]`` with numbers or percents.
    """
    match = _SPLIT.match(split)
    if match is None:
        raise UserError(
            f'{where}: cannot read the split "{split}". Expected e.g. "train", "train[:90%]", "train[100:]".'
        )
    name, start, stop = match.groups()
    return name, None if "[" not in split else (start or "", stop or "")


def bounds(part: tuple[str, str] | None, length: int) -> tuple[int, int]:
    """First and one past the last example of a part; percents round to the nearest example."""
    if part is None:
        return 0, length

    def place(text: str, default: int) -> int:
        if not text:
            return default
        value = round(int(text[:-1]) * length / 100) if text.endswith("%") else int(text)
        return min(max(value + length if text.startswith("-") else value, 0), length)

    start, stop = place(part[0], 0), place(part[1], length)
    return start, max(start, stop)


def balanced_subset(labels: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """The first ``limit`` examples of a seeded order that takes the classes in turn.

    A smaller limit is a prefix of a larger one; class counts differ by at most one
    (until a class runs out).

    Args:
      labels: int [N].
      limit: how many, at most N.
      seed: of the choice.

    Returns:
      int64 [limit], indices into ``labels``.
    """
    shuffled = order.permutation(seed, 0, len(labels))
    turn = np.empty(len(labels), np.int64)  # how many of its class come before it
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        turn[members] = np.arange(len(members))
    return np.lexsort((labels, turn))[:limit]
