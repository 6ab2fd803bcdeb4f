"""Published models of images: the recipe that evaluates one, and how it prepares images."""

from collections.abc import Mapping, Sequence
from typing import Any

from vitax.checkpoint.files import WeightFile
from vitax.checkpoint.names.layout import Constants
from vitax.weights.family import Shaped


def recipe(file: WeightFile, constants: Constants, shaped: Shaped) -> tuple[dict[str, Any], str]:
    """A recipe that evaluates, and a line on its images; what only training needs is there for form's sake."""
    size = shaped.image_size
    assert size is not None
    mean, std = _for_channels(constants.mean, constants.std, shaped.channels)
    made = {
        "model": dict(shaped.model),
        "objective": {"kind": "classification", "mean": mean, "std": std},
        "data": {
            "source": {"kind": "labelled", "path": "."},
            "num_examples": 1,
            "num_classes": shaped.model["num_classes"] or 1,
            "image_size": size[0] if size[0] == size[1] else size,
            "channels": shaped.channels,
            "ops": constants.ops(size),
            "batch_size": 64,
        },
        "optimizer": {"kind": "sgd", "lr": 1e-3},
        "schedule": {"kind": "constant"},
        "duration": {"steps": 1},
    }
    return made, f"pixels: {preparation(made, size)}"


def _for_channels(
    mean: tuple[float, ...], std: tuple[float, ...], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scaling of RGB, where that is only assumed, as one value for another number of channels.

    Three values would broadcast a grey image to three channels, which the first kernel does not take.
    """
    if {len(mean), len(std)} <= {1, channels}:
        return mean, std
    return (sum(mean) / len(mean),), (sum(std) / len(std),)


def preparation(recipe: Mapping[str, Any], size: tuple[int, int]) -> str:
    """How a recipe scales pixels and sizes images, in words."""
    mean, std = (tuple(recipe["objective"].get(name) or (0.5,)) for name in ("mean", "std"))
    return f"(x / 255 - {_plain(mean)}) / {_plain(std)}; {_spell(recipe['data'].get('ops') or (), size)}"


def _plain(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else str(list(values))


def _spell(ops: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> str:
    how = {
        "resize": "resized to {height}x{width} whatever the aspect ratio ({method})",
        "resize_small": "smaller side to {smaller} ({method})",
        "central_crop": "cropped to {height}x{width}",
    }
    shown = {"height": size[0], "width": size[1], "method": "bilinear", "smaller": min(size)}
    said = [how[op["kind"]].format(**{**shown, **op}) for op in ops if op["kind"] in how]
    return ", ".join(said)
