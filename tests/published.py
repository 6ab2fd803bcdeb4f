"""Published files run through the model that they imply."""

from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from vitax.construct import construct
from vitax.models.table import MODELS

GOLDEN = Path(__file__).parent / "golden" / "published"
TOLERANCE = 1e-5  # of the largest value; never relaxed
FILES = {
    path.parent.name: path
    for path in sorted(GOLDEN.glob("*/*"))
    if path.suffix in (".npz", ".safetensors") and path.name != "outputs.npz"
}


def nested(flat):
    arrays = {name: jnp.asarray(np.asarray(value), jnp.float32) for name, value in flat.items()}
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


def outputs(name):
    """What the library gave."""
    with np.load(GOLDEN / name / "outputs.npz") as file:
        return dict(file)


def apply(found, image, **fields):
    """The model of a ``Published`` on scaled images."""
    model = construct(MODELS, found.recipe["model"] | fields, "model")
    return jax.jit(model.apply)({"params": nested(found.params)}, image)


def error(have, want):
    return float(np.abs(np.asarray(have) - want).max() / np.abs(want).max())
