"""Parameters of a checkpoint in one file for other programs: safetensors or NumPy's npz."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vitax.checkpoint import digest, offline, store, warm_start, weight_writer
from vitax.core.errors import UserError


def export(
    directory: Path, step: int, out: Path, weights: Literal["ema", "params"] | None = None, last: int = 1
) -> dict[str, Any]:
    """Writes the parameters of a step, and collections such as running statistics, under their names.

    Those of averaged parameters are averaged too. With ``last`` above 1 every array is the
    mean over so many steps that end with this one (Vaswani et al., arXiv:1706.03762,
    section 6.1), summed in float64.

    A safetensors file holds float32 and bfloat16 as they are; NumPy's format has no
    bfloat16, so an npz holds float32 in its place (exact). The arrays of an npz are
    written one by one; safetensors needs them all at once, and once.

    Args:
      directory: the folder of steps.
      step: which.
      out: ``*.safetensors`` or ``*.npz``; appears when it is whole.
      weights: averaged parameters or those of the last step; averaged ones where there are any by default.
      last: checkpoints whose mean is written.

    Returns:
      ``file, step, steps, weights, arrays, parameters, bytes, digest``.

    Raises:
      UserError: an unknown suffix, no averages, a missing package, a damaged checkpoint, or fewer than ``last``.
    """
    weight_writer.check(out)
    steps = [other for other in store.steps_in(directory) if other <= step][-last:]
    if len(steps) < last:
        raise UserError(
            f"--last {last}: {directory} holds {len(steps)} checkpoint(s) up to step {step} "
            f"({', '.join(map(str, steps))}). More are kept with --config.checkpoint.keep={last}."
        )
    with _naming(directory, step):
        metadata, digests = store.read_metadata(directory, step)
    averaged = any(name.startswith("ema/") for name in digests)
    if weights == "ema" and not averaged:
        raise UserError(f"{directory / str(step)} holds no averages (optimizer.ema was None); leave --ema out.")
    root = weights or ("ema" if averaged else "params")
    names = warm_start.variables_of(digests, root)
    about = _about(metadata, step, root)
    if last > 1:
        held = {names[name]: offline.digest_of(array) for name, array in _mean(directory, steps, names)}
        about |= {"mean_of_steps": json.dumps(steps), "digest": digest.combine(held)}
    else:
        held = {short: digests[name] for name, short in names.items()}
        about |= {"digest": digest.combine(held), "state_digest": digest.combine(digests)}
    arrays = ((names[name], array) for name, array in _mean(directory, steps, names))
    shapes = weight_writer.write(out, arrays, about)
    return {
        "file": str(out),
        "step": step,
        "steps": steps,
        "weights": root,
        "arrays": len(shapes),
        "parameters": sum(int(np.prod(digest.shape_of(digests[n])[0])) for n in names if n.startswith(f"{root}/")),
        "bytes": out.stat().st_size,
        "digest": about["digest"],
    }


@contextlib.contextmanager
def _naming(directory: Path, step: int) -> Iterator[None]:
    """Says which step is damaged."""
    try:
        yield
    except store.Damaged as problem:
        raise UserError(
            f"Checkpoint {directory / str(step)} is damaged: {problem}. Name another with DIR@STEP."
        ) from problem


def _arrays(directory: Path, step: int, names: Mapping[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    with _naming(directory, step):
        yield from offline.arrays(directory, step, names)


def _mean(directory: Path, steps: Sequence[int], names: Mapping[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    """(name, mean over the steps), one after the other."""
    for same in zip(*(_arrays(directory, step, names) for step in steps), strict=True):
        (name, first), *_ = same
        if len(same) == 1:
            yield name, first
            continue
        total = sum(np.asarray(array, np.float64) for _, array in same)
        yield name, np.asarray(total / len(same)).astype(first.dtype)


def _about(metadata: Mapping[str, Any], step: int, root: str) -> dict[str, str]:
    """Metadata of the file, all of it text as safetensors wants."""
    return {
        "format": "vitax",
        "step": str(step),
        "weights": root,
        "name": metadata.get("name") or "",
        "recipe": json.dumps(metadata["recipe"]),
        "class_names": json.dumps(metadata.get("class_names")),
        "tokenizers": json.dumps(metadata.get("tokenizers")),
        "versions": json.dumps(metadata["versions"]),
    }
