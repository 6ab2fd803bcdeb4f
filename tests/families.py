"""Files of BiT, EfficientNet and hybrids as their libraries write them, made on the spot; what the libraries gave."""

import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np

from scripts import seeded_weights
from tests.published import TOLERANCE, error, nested
from vitax.construct import construct
from vitax.models.table import MODELS

GOLDEN = Path(__file__).parent / "golden" / "families"
NAMES = sorted(path.name for path in GOLDEN.iterdir())
# Google's files; the others are what torch libraries write.
FILES = {"bit_google": "BiT-M-R50x1.npz", "hybrid_google": "R26_S_32.npz"}
__all__ = ["FILES", "GOLDEN", "NAMES", "TOLERANCE", "apply", "error", "image", "names_of", "outputs", "write"]


def names_of(name):
    """Name of an array in the file -> (type, shape)."""
    held = json.loads((GOLDEN / name / "names.json").read_text())
    return {key: (dtype, tuple(shape)) for key, (dtype, shape) in held.items()}


def write(name, folder, beside=True):
    """The file of a golden model in a folder; without ``beside``, alone."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILES.get(name, "model.safetensors")
    seeded_weights.write(path, seeded_weights.fill(names_of(name)))
    for extra in (GOLDEN / name).glob("*config.json") if beside else ():
        shutil.copy(extra, folder)
    return path


@functools.cache
def outputs(name):
    with np.load(GOLDEN / name / "outputs.npz") as file:
        return dict(file)


def image(name, prefix=""):
    size = outputs(name)[f"{prefix}size"]
    return seeded_weights.uniform(f"image of {prefix.strip('_') or name}", (2, *size, 3)).astype(np.float32)


def apply(found, images, **fields):
    """The model of a ``Published`` on scaled images."""
    model = construct(MODELS, found.recipe["model"] | fields, "model")
    statistics = {k.partition("/")[2]: x for k, x in found.params.items() if k.startswith("batch_stats/")}
    params = {k: x for k, x in found.params.items() if not k.startswith("batch_stats/")}
    variables = {"params": nested(params)} | ({"batch_stats": nested(statistics)} if statistics else {})
    run = jax.jit(model.apply, compiler_options={"xla_backend_optimization_level": 0})
    return run(variables, images)
