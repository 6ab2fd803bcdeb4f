"""Warm start: parameters of one model into another, saying what happened to each."""

import dataclasses
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vitax.checkpoint import digest, store
from vitax.core import paths, tree
from vitax.core.errors import UserError, suggest

log = logging.getLogger("vitax")

Resample = Callable[[Any, tuple[int, ...]], Any]


@dataclasses.dataclass
class Placement:
    """What a warm start did, by parameter name.

    Attributes:
      placed: taken as they are.
      resampled: taken after resampling, with both shapes.
      reset: kept at their fresh values, with the reason.
      ignored: in the source and not in the model.
    """

    placed: list[str] = dataclasses.field(default_factory=list)
    resampled: list[str] = dataclasses.field(default_factory=list)
    reset: list[str] = dataclasses.field(default_factory=list)
    ignored: list[str] = dataclasses.field(default_factory=list)

    def lines(self) -> list[str]:
        """Lines for a person: counts, and every name that was not simply placed."""
        lines = [f"placed {len(self.placed)} parameters as they are"]
        for what, names in (("resampled", self.resampled), ("reset", self.reset), ("ignored", self.ignored)):
            lines += [f"{what:<9} {name}" for name in names]
        return lines


def locate(checkpoint: str, what: str = "--checkpoint") -> tuple[Path, list[int], int | None]:
    """``DIR``, ``DIR@STEP`` or ``DIR/checkpoints/STEP`` -> (folder of steps, all of them, the one named or None).

    ``what`` says in errors where the path was given.

    Raises:
      UserError: no such workdir or step; names what is there.
    """
    match = re.fullmatch(r"(.*?)(?:@(\d+))?", checkpoint)
    assert match is not None
    path = paths.parse(match.group(1))
    path = path if paths.is_url(path) else path.absolute()  # Orbax refuses relative paths
    if match.group(2) is None and path.name.isdigit() and path.parent.name == "checkpoints":
        return locate(f"{path.parent.parent}@{path.name}", what)
    directory = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    steps = store.steps_in(directory)
    if not steps:
        near = (
            sorted(p.parent.name for p in path.parent.glob("*/checkpoints") if store.steps_in(p))
            if path.parent.is_dir()
            else []
        )
        hint = f" Workdirs beside it: {', '.join(near)}." if near else ""
        raise UserError(
            f"{what} {checkpoint}: no checkpoint in {path} (looked for checkpoints/STEP/)."
            f"{suggest(path.name, near)}{hint}"
        )
    step = int(match.group(2)) if match.group(2) is not None else None
    if step is not None and step not in steps:
        nearest = min(steps, key=lambda found: abs(found - step))
        raise UserError(
            f"{what} {checkpoint}: no step {step}. There are: {', '.join(map(str, steps))}. "
            f"The nearest is {match.group(1)}@{nearest}."
        )
    return directory, steps, step


def find(checkpoint: str, what: str = "--checkpoint") -> tuple[Path, int]:
    """``locate``, and without a step the newest readable one: (folder of steps, step).

    Raises:
      UserError: no such workdir or step, or all are damaged.
    """
    directory, steps, named = locate(checkpoint, what)
    if named is not None:
        return directory, named
    for step in reversed(steps):
        try:
            store.read_metadata(directory, step)
        except store.Damaged as problem:
            log.warning("Checkpoint %s is damaged: %s. Trying the one before.", directory / str(step), problem)
        else:
            return directory, step
    raise UserError(f"All checkpoints in {directory} are damaged (steps {', '.join(map(str, steps))}).")


def load_params(directory: Path, step: int, mesh: Mesh, like: Any = None) -> tuple[dict[str, jax.Array], str]:
    """Parameters by name, averaged ones where the run kept them, and other variables with them.

    The names of others begin with their collection: ``batch_stats/stem/norm/mean``.

    Args:
      directory: the folder of steps.
      step: which.
      mesh: where to put them.
      like: the parameters of the model they go into, and beside them its other
        collections; equal shapes take their sharding, all others are replicated.

    Returns:
      (name -> array, ``"ema"`` or ``"params"``).

    Raises:
      UserError: the step is damaged.
    """
    _, digests = store.read_metadata(directory, step)
    root = "ema" if any(name.startswith("ema/") for name in digests) else "params"
    names = variables_of(digests, root)
    whole = NamedSharding(mesh, PartitionSpec())
    wanted = {name: (x.shape, x.sharding) for name, x in tree.named_leaves(like)} if like is not None else {}
    abstract: dict[str, Any] = {}
    for name, short in names.items():
        dims, dtype = digest.shape_of(digests[name])
        expected, sharding = wanted.get(short, (None, whole))
        abstract[name] = jax.ShapeDtypeStruct(dims, dtype, sharding=sharding if expected == dims else whole)
    try:
        loaded = store.load(directory, step, abstract)
    except store.Damaged as problem:
        raise UserError(
            f"Checkpoint {directory / str(step)} is damaged: {problem}. Name another with DIR@STEP."
        ) from problem
    return {names[name]: leaf for name, leaf in loaded.items()}, root


def variables_of(names: Iterable[str], root: str) -> dict[str, str]:
    """Names in a checkpoint -> names in a model, of its parameters and of the mutables that belong to them.

    Args:
      names: of all arrays of a state.
      root: ``"params"`` or ``"ema"``.
    """
    prefixes = {"params": ("params/", "mutables/"), "ema": ("ema/", "ema_mutables/")}[root]
    return {n: n.partition("/")[2] for n in names if n.startswith(prefixes)}


def place(
    fresh: Any, source: Mapping[str, Any], reset: Sequence[str], resample: Mapping[str, Resample]
) -> tuple[Any, Placement]:
    """Puts source parameters into a fresh tree.

    Args:
      fresh: freshly initialised parameters, in their final sharding.
      source: name -> array, of JAX or NumPy.
      reset: regular expressions of names that stay fresh.
      resample: name -> function of an array of that name and the shape wanted, which
        returns the array itself where it fits.

    Raises:
      UserError: a shape differs and nothing says how to mend it, or nothing fits at all.
    """
    done = Placement()
    done.ignored = sorted(source.keys() - {name for name, _ in tree.named_leaves(fresh)})
    problems: list[str] = []

    def one(name: str, leaf: jax.Array) -> jax.Array:
        if tree.matches(name, reset):
            done.reset.append(f"{name} {tree.describe(leaf)} (as asked)")
            return leaf
        if name not in source:
            done.reset.append(f"{name} {tree.describe(leaf)} (not in the source)")
            return leaf
        value = source[name]
        # Asked also where shapes agree, by chance: 4x4 patches have as many positions as 2x8.
        fitted = resample[name](value, leaf.shape) if name in resample else value
        if fitted.shape == leaf.shape:
            if fitted is value:
                done.placed.append(name)
            else:
                done.resampled.append(f"{name} {list(value.shape)} -> {list(leaf.shape)}")
            return jax.device_put(fitted.astype(leaf.dtype), leaf.sharding)
        problems.append(f"{name}: the source has {tree.describe(value)}, the model {tree.describe(leaf)}")
        return leaf

    params = tree.map_named(one, fresh)
    if problems:
        shown = "\n  ".join(problems[:10])
        raise UserError(
            f"init_from: shapes differ:\n  {shown}\nAdd their names to init_from.reset to start them afresh, "
            "or make the model like its source."
        )
    if not done.placed:
        raise UserError("init_from: no parameter of the source fits the model; is it another family?")
    return params, done
