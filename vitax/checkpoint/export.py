"""Parameters of a checkpoint in one file for other programs: safetensors or NumPy's npz."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vitax.checkpoint import digest, offline, store, warm_start, weight_writer
from vitax.core.errors import UserError


def export(directory: Path, step: int, out: Path, weights: Literal["ema", "params"] | None = None) -> dict[str, Any]:
    """Writes the parameters of a step, and collections such as running statistics, under their names.

    Those of averaged parameters are averaged too.

    A safetensors file holds float32 and bfloat16 as they are; NumPy's format has no
    bfloat16, so an npz holds float32 in its place (exact). The arrays of an npz are
    written one by one; safetensors needs them all at once, and once.

    Args:
      directory: the folder of steps.
      step: which.
      out: ``*.safetensors`` or ``*.npz``; appears when it is whole.
      weights: averaged parameters or those of the last step; averaged ones where there are any by default.

    Returns:
      ``file, step, weights, arrays, parameters, bytes, digest``.

    Raises:
      UserError: an unknown suffix, no averages, a missing package, or a damaged checkpoint.
    """
    weight_writer.check(out)
    try:
        metadata, digests = store.read_metadata(directory, step)
        averaged = any(name.startswith("ema/") for name in digests)
        if weights == "ema" and not averaged:
            raise UserError(f"{directory / str(step)} holds no averages (optimizer.ema was None); leave --ema out.")
        root = weights or ("ema" if averaged else "params")
        names = warm_start.variables_of(digests, root)
        about = _about(metadata, digests, names, step, root)
        arrays = ((names[name], array) for name, array in offline.arrays(directory, step, names))
        shapes = weight_writer.write(out, arrays, about)
    except store.Damaged as problem:
        raise UserError(
            f"Checkpoint {directory / str(step)} is damaged: {problem}. Name another with DIR@STEP."
        ) from problem
    return {
        "file": str(out),
        "step": step,
        "weights": root,
        "arrays": len(shapes),
        "parameters": sum(int(np.prod(digest.shape_of(digests[n])[0])) for n in names if n.startswith(f"{root}/")),
        "bytes": out.stat().st_size,
        "digest": about["digest"],
    }


def _about(
    metadata: Mapping[str, Any], digests: Mapping[str, str], names: Mapping[str, str], step: int, root: str
) -> dict[str, str]:
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
        "digest": digest.combine({short: digests[name] for name, short in names.items()}),
        "state_digest": digest.combine(digests),
    }
