"""How images are prepared, as the files say that timm and transformers write beside weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vitax.checkpoint.files import WeightFile
from vitax.checkpoint.names.layout import Constants
from vitax.core.errors import UserError, pick

_TIMM_RESIZES = {"bicubic": "bicubic_antialias", "bilinear": "bilinear_antialias"}
# By PIL's numbers.
_PIL_RESIZES = {0: "nearest", 2: "bilinear_antialias", 3: "bicubic_antialias"}
FROM_CONFIG = "constants from config.json beside the file"


def pair(size: Any) -> tuple[int, int] | None:
    """(height, width) of what a configuration may say."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2 and all(size):
        return int(size[0]), int(size[1])
    return None


def timm(file: WeightFile, default: Constants, model: Mapping[str, Any], no_config: str) -> Constants:
    """From ``pretrained_cfg`` in ``config.json``.

    Args:
      file: the weights.
      default: what holds where there is no configuration.
      model: ``Constants.model``.
      no_config: the note for that case.
    """
    config = file.config
    about: Mapping[str, Any] = config.get("pretrained_cfg") or {}
    if not about:
        return dataclasses.replace(default, model=model, notes=(no_config,))
    arguments: Mapping[str, Any] = config.get("model_args") or {}
    names = config.get("label_names")  # a mapping where numbers are left out
    crop = None if about.get("crop_mode") == "squash" else float(about.get("crop_pct", default.crop))
    return Constants(
        model=model,
        mean=tuple(about.get("mean", default.mean)),
        std=tuple(about.get("std", default.std)),
        resize=pick(_TIMM_RESIZES, about.get("interpolation", "bicubic"), f"{file.path}: interpolation"),
        crop=crop,
        image_size=pair(arguments.get("img_size")) or pair(about.get("input_size", [3, None, None])[1:]),
        class_names=tuple(names) if isinstance(names, list) else None,
        notes=(FROM_CONFIG,),
    )


def hugging_face(file: WeightFile, default: Constants, model: Mapping[str, Any], no_config: str) -> Constants:
    """From ``config.json`` and ``preprocessor_config.json``; arguments as for ``timm``."""
    config, images = file.config, file.preprocessor
    notes = [FROM_CONFIG if config else no_config]
    if not images:
        notes.append("no preprocessor_config.json beside the file: pixels and resizing are the model's usual ones")
    size = images.get("size", {})
    size = {"height": size, "width": size} if isinstance(size, int) else size
    crop_to = images.get("crop_size", {}) if images.get("do_center_crop") else {}
    crop_to = {"height": crop_to} if isinstance(crop_to, int) else crop_to
    edge = size.get("shortest_edge") or (size.get("height") if crop_to else None)
    crop = default.crop if not images else crop_to.get("height", 0) / edge if edge and crop_to else None
    mean, std, more = _pixels(file, default)
    return Constants(
        model=model,
        mean=mean,
        std=std,
        resize=_PIL_RESIZES.get(images.get("resample", -1), default.resize),
        crop=crop,
        image_size=pair(config.get("image_size")) or pair([crop_to.get("height"), crop_to.get("width")]),
        class_names=class_names(file),
        notes=(*notes, *more),
    )


def class_names(file: WeightFile) -> tuple[str, ...] | None:
    """``id2label`` of ``config.json``; None for the names that it has by default."""
    names = file.config.get("id2label") or {}
    real = [str(names[k]) for k in sorted(names, key=int)]
    return tuple(real) if real != [f"LABEL_{i}" for i in range(len(real))] else None


def _pixels(file: WeightFile, default: Constants) -> tuple[tuple[float, ...], tuple[float, ...], list[str]]:
    """Mean, std for pixels in [0, 1], and what was folded into them."""
    images = file.preprocessor
    if not images or images.get("do_normalize") is False:
        return default.mean, default.std, []
    mean = tuple(images.get("image_mean") or default.mean)
    std = tuple(images.get("image_std") or default.std)
    largest = 255.0 * images.get("rescale_factor", 1 / 255)
    if abs(largest - 1) > 1e-6 or images.get("rescale_offset"):
        offset = 1.0 if images.get("rescale_offset") else 0.0
        mean, std = tuple((m + offset) / largest for m in mean), tuple(s / largest for s in std)
    if not images.get("include_top"):
        return mean, std, []
    again = tuple(images.get("image_std") or default.std)
    line = "include_top in preprocessor_config.json: pixels are divided by image_std a second time"
    return mean, tuple(s * t for s, t in zip(std, again)), [line]


def architecture_of(file: WeightFile) -> str:
    """timm's name of an architecture, from ``config.json`` or else the name of the file."""
    stated = str(file.config.get("architecture", ""))
    return stated or file.path.stem.partition(".")[0]


def refuse(file: WeightFile, what: str, why: str) -> UserError:
    """The error for a configuration that our models cannot follow."""
    return UserError(f"{file.path}: {what} in config.json; {why}.")
