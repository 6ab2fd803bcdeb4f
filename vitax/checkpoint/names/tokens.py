"""Tokens in front of the patches and slots of position tables: what others keep apart, put as we have it.

Ours: tokens run [cls, registers, patches]; ``pos_embedding`` has a slot for cls, in front,
exactly where there is a cls token, and none for registers; cls is there for pool ``tok`` alone.
"""

import math
from collections.abc import Mapping

import numpy as np

from vitax.core.errors import UserError

FRONT = ("cls", "distillation", "registers")
Tree = dict[str, np.ndarray]


def fold(
    arrays: Mapping[str, np.ndarray], pool: str, patches: int | None, cls_slot: bool | None
) -> tuple[Tree, list[str]]:
    """Puts tokens and positions of another layout as ours; the function of the model stays the same.

    Adding a position to a learned token before or after it is stored makes no difference,
    and a token that nothing pools from is a register.

    Args:
      arrays: under our names, and ``distillation`` for a second token of its kind.
      pool: of the model.
      patches: how many there are, where something says so.
      cls_slot: ``Layout.cls_slot``.

    Returns:
      (arrays, lines that say what was put elsewhere).

    Raises:
      UserError: the positions fit no number of patches.
    """
    tree = {name: x for name, x in arrays.items() if name not in FRONT}
    front = [(name, np.asarray(arrays[name])) for name in FRONT if name in arrays]
    positions = arrays.get("pos_embedding")
    if positions is None:
        return dict(arrays), []
    tokens = [(name, x[:, i : i + 1]) for name, x in front for i in range(x.shape[1])]
    slots = _slots(positions.shape[1], len(tokens), "cls" in arrays, patches, cls_slot)
    unchanged = {name for name, _ in front} <= {"cls", "registers"}
    if pool == "tok" and slots == 1 and unchanged:
        return dict(arrays), []
    lines = []
    inside = 1 if pool == "tok" else 0
    others = []
    for i, (name, token) in enumerate(tokens[inside:], start=inside):
        others.append(token + positions[:, i : i + 1] if i < slots else token)
        if name != "registers":
            lines.append(f"{name}: becomes a register" + (", its position added" if i < slots else ""))
    if any(name == "registers" for name, _ in tokens) and slots == len(tokens) > 1:
        lines.append("registers: their positions added")
    if others:
        tree["registers"] = np.concatenate(others, 1)
    table = positions[:, slots:]
    if inside:
        tree["cls"] = tokens[0][1]
        first = positions[:, :1] if slots else np.zeros_like(positions[:, :1])
        table = np.concatenate([first, table], 1)
        if not slots:
            lines.append("pos_embedding: a slot of zeros for cls, which has no position there")
    tree["pos_embedding"] = table
    return tree, lines


def _slots(length: int, tokens: int, has_cls: bool, patches: int | None, cls_slot: bool | None) -> int:
    """Slots of a position table that are not of patches."""
    if cls_slot is False or not tokens:
        return 0
    if patches is not None:
        possible = [n for n in (tokens, 1 if has_cls else 0, 0) if length - n == patches]
    elif cls_slot:
        possible = [n for n in dict.fromkeys((1 if has_cls else 0, tokens)) if _square(length - n)]
    else:
        possible = [n for n in dict.fromkeys((tokens, 0)) if _square(length - n)]
    if possible:
        return possible[0]
    if patches is None and cls_slot and tokens == 1:
        return 1  # a grid that is no square, of one token that has a slot
    raise UserError(
        f"{length} position embeddings and {tokens} tokens in front of the patches: "
        + (f"they do not make {patches} patches" if patches is not None else "the patches make no square")
        + "; give the size of the images with --config.data.image_size=(HEIGHT,WIDTH)."
    )


def merge_cls_slot(arrays: Mapping[str, np.ndarray]) -> Tree:
    """Adds the position of cls to cls and drops its slot, as big_vision and timm's no_embed_class want it."""
    if "cls" not in arrays:
        return dict(arrays)
    positions = np.asarray(arrays["pos_embedding"])
    return dict(arrays) | {"cls": arrays["cls"] + positions[:, :1], "pos_embedding": positions[:, 1:]}


def grid_of(patches: int) -> tuple[int, int] | None:
    """(rows, columns) of a square number of patches, or None."""
    side = math.isqrt(patches)
    return (side, side) if side * side == patches else None


def _square(number: int) -> bool:
    return number > 0 and grid_of(number) is not None
