"""What an optimiser does to which parameter: patterns -> rules a leaf.

Parameters are one leaf a layer and never stacked (``encoder/block_00/...``,
``encoder/block_01/...``). So whatever acts "per leaf" acts per layer with no further
care: LAMB's trust ratios, Adafactor's factored statistics and update clipping, Muon's
matrices, layer-wise rates, freezing of the first blocks.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence

from vitax.core import tree
from vitax.core.errors import UserError, suggest
from vitax.core.types import PyTree

_BLOCK = re.compile(r"(?:^|/)block_(\d+)(?:/|$)")
# What BEiT calls layer 0: all that makes tokens.
_TOKENS = re.compile(r"(?:^|/)(?:\w*embedding\w*|cls\w*|registers?\w*|mask_token|root|stem)(?:/|$)")


@dataclasses.dataclass(frozen=True)
class LeafRule:
    """What happens to one parameter.

    Attributes:
      name: ``encoder/block_00/attention/query/kernel``.
      leaf: ``float32[768,12,64]``.
      decays: whether weight decay acts on it.
      lr_multiplier: factor of the learning rate.
      frozen: no update and no optimiser state.
      method: the update rule, e.g. ``adamw``, or ``muon`` (it uses two); ``-`` if frozen.
    """

    name: str
    leaf: str
    decays: bool
    lr_multiplier: float
    frozen: bool
    method: str


def check_patterns(patterns: Iterable[str], names: Sequence[str], where: str) -> None:
    """Refuses a pattern that is no regular expression or is found in no name.

    Raises:
      UserError: with the nearest parameter names.
    """
    for pattern in patterns:
        try:
            regex = re.compile(pattern)
        except re.error as error:
            raise UserError(f"{where}: {pattern!r} is not a regular expression: {error}.") from None
        if any(regex.search(name) for name in names):
            continue
        plain = pattern.strip("^$").replace(r"\d+", "00").replace(".*", "")
        # A part of a name is as likely meant as a whole one.
        near = suggest(plain, sorted({part for name in names for part in _parts(name)}))
        raise UserError(
            f"{where}: the pattern {pattern!r} is found in none of the {len(names)} parameter names.{near} "
            f"Names look like {', '.join(names[:2])}."
        )


def _parts(name: str) -> list[str]:
    """``a/b/c`` -> a, a/b, a/b/c, b, b/c, c."""
    steps = name.split("/")
    return ["/".join(steps[i:j]) for i in range(len(steps)) for j in range(i + 1, len(steps) + 1)]


def first_match(name: str, table: Sequence[tuple[str, float]], default: float) -> float:
    """Value of the first pattern found in ``name``."""
    return next((value for pattern, value in table if re.search(pattern, name)), default)


def layer_ids(names: Sequence[str]) -> dict[str, int]:
    """Name -> layer number in the sense of layer-wise learning-rate decay.

    0 for what makes tokens (embeddings, class token, registers, convolutional stem), i + 1
    for block i (of a BiT: stage i), depth + 1 for the rest (last norm, head).

    Reference: BEiT, arXiv:2106.08254, and its published code.

    Raises:
      UserError: there are no blocks, or more than one stack of them.
    """
    blocks: dict[str, int] = {}
    stacks = set()
    for name in names:
        found = _BLOCK.search(name)
        # A stem may have blocks of its own.
        if found and not _TOKENS.search(name):
            blocks[name] = int(found[1])
            stacks.add(name[: found.start()])
    if len(stacks) != 1:
        raise UserError(
            "optimizer.layer_decay: expected parameters with one stack of blocks (encoder/block_00/...), found "
            f"{sorted(stacks) or 'none'}; use optimizer.lr_multipliers instead."
        )
    # ViT counts its blocks from 0, BiT its stages from 1.
    first = min(blocks.values())
    depth = max(blocks.values()) - first + 1
    return {n: blocks[n] - first + 1 if n in blocks else 0 if _TOKENS.search(n) else depth + 1 for n in names}


def layer_decay_factors(names: Sequence[str], decay: float) -> dict[str, float]:
    """Name -> ``decay ** (depth + 1 - layer)``: 1 for the head, the least for the embedding."""
    ids = layer_ids(names)
    depth = max(i for n, i in ids.items() if _BLOCK.search(n))
    return {name: decay ** (depth + 1 - i) for name, i in ids.items()}


def rules(
    params_like: PyTree,
    *,
    decay_mask: Sequence[str],
    weight_decay: float,
    frozen: Sequence[str],
    lr_multipliers: Sequence[tuple[str, float]],
    layer_decay: float | None,
    check_decay_mask: bool,
) -> list[LeafRule]:
    """Rules of all leaves, in their order, without a method; see ``Optimizer`` for the fields.

    Raises:
      UserError: a pattern that matches nothing, or nothing is left to train.
    """
    leaves = tree.named_leaves(params_like)
    names = [name for name, _ in leaves]
    if check_decay_mask:
        check_patterns(decay_mask, names, "optimizer.decay_mask")
    check_patterns(frozen, names, "optimizer.frozen")
    check_patterns([pattern for pattern, _ in lr_multipliers], names, "optimizer.lr_multipliers")
    by_layer = layer_decay_factors(names, layer_decay) if layer_decay is not None else dict.fromkeys(names, 1.0)
    found = []
    for name, leaf in leaves:
        still = tree.matches(name, frozen)
        found.append(
            LeafRule(
                name=name,
                leaf=tree.describe(leaf),
                decays=not still and weight_decay != 0 and tree.matches(name, decay_mask),
                lr_multiplier=0.0 if still else by_layer[name] * first_match(name, lr_multipliers, 1.0),
                frozen=still,
                method="-",
            )
        )
    if found and all(rule.frozen for rule in found):
        raise UserError(f"optimizer.frozen: {tuple(frozen)} freezes every parameter; nothing is left to train.")
    return found
