"""What every conversion to another program's files needs: names, and how images are prepared."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitax.checkpoint import convert
from vitax.checkpoint.names.layout import HALF, Layout
from vitax.core.errors import UserError
from vitax.weights.reading import Published

NO_ARCHITECTURE = "config.json: names no architecture, since timm has none"


@dataclasses.dataclass(frozen=True)
class Written:
    """What is to be written.

    Attributes:
      arrays: by their names there.
      beside: name of a file beside the weights -> its content, bytes or what is written as JSON.
      metadata: text in the weight file.
      lines: what the other program must be told, or cannot hold.
    """

    arrays: Mapping[str, np.ndarray]
    beside: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    lines: tuple[str, ...] = ()


def renamed(layout: Layout, found: Published, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays under the names of a layout, float32.

    Raises:
      UserError: the layout has no place for some.
    """
    heads = found.recipe["model"].get("num_heads")
    sizes = {"num_heads": heads} if heads else {}
    done = convert.to_theirs(layout.table, params, sizes)
    rest = done.unexpected + done.incomplete
    if rest:
        raise UserError(f"{found.spec}: {layout.title} has no place for {', '.join(rest[:8])}.")
    return {name: np.asarray(x, np.float32) for name, x in done.arrays.items()}


def refuse(model: Mapping[str, Any], target: str, fields: tuple[str, ...]) -> None:
    """Raises UserError where a model has one of these fields set."""
    for name in fields:
        if model[name]:
            raise UserError(f"{target} has no {name} (model.{name} = {model[name]}); --to vitax keeps everything.")


def told(model: Mapping[str, Any], theirs: Mapping[str, Any], why: str) -> tuple[str, ...]:
    """Lines for settings that the other program has otherwise."""
    return tuple(
        f"{name}: the model has {model[name]}, its reader takes {value}; {why}"
        for name, value in theirs.items()
        if model[name] != value
    )


def classes(found: Published) -> int:
    """Of the head; 0 without one."""
    return int(found.params["head/bias"].shape[0]) if "head/bias" in found.params else 0


def hf_labels(found: Published) -> dict[str, Any]:
    """The names of classes as transformers wants them."""
    names = found.class_names or [f"LABEL_{i}" for i in range(classes(found))]
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def preprocessor(found: Published, squash: str = "ViTImageProcessor") -> dict[str, Any]:
    """``preprocessor_config.json``; ``squash`` is the class where whole images are resized."""
    shown, (height, width) = images(found), found.size
    scaled = {
        "do_resize": True,
        "resample": {"nearest": 0, "bilinear": 2, "bicubic": 3}[shown["filter"]],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": shown["mean"],
        "image_std": shown["std"],
    }
    if shown["crop"] is None:
        kind: dict[str, Any] = {"image_processor_type": squash, "size": {"height": height, "width": width}}
    else:
        edge = int(min(height, width) / shown["crop"] + 1e-6)
        crop = {"do_center_crop": True, "crop_size": {"height": height, "width": width}}
        kind = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": edge}} | crop
    return {"preprocessor_config.json": kind | scaled}


def images(found: Published) -> dict[str, Any]:
    """``mean``, ``std`` (one a channel), ``filter`` and ``crop`` (None squashes) of the recipe's images."""
    objective, data = found.recipe["objective"], found.recipe["data"]
    channels = data.get("channels", 3)
    ops = {op["kind"]: op for op in data.get("ops") or ()}
    resize = ops.get("resize_small") or ops.get("resize") or {}
    kind = (resize.get("method") or "bilinear").partition("_")[0]
    scale = {name: list(objective.get(name) or HALF[:1]) for name in ("mean", "std")}
    return {
        **{name: values * channels if len(values) == 1 else values for name, values in scale.items()},
        "filter": {"bicubic": "bicubic", "nearest": "nearest"}.get(kind, "bilinear"),
        "crop": min(found.size) / ops["resize_small"]["smaller"] if "resize_small" in ops else None,
    }


def timm_config(
    found: Published,
    architecture: str | None,
    first_conv: str,
    classifier: str,
    arguments: Mapping[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """``config.json`` for timm.

    Args:
      found: what is written.
      architecture: timm's name for it; None where it has none, and only we can read the configuration.
      first_conv: name of its first convolution there.
      classifier: name of its head there.
      arguments: ``model_args``.
      **more: of the upper level.
    """
    shown = images(found)
    labels = {"label_names": list(found.class_names)} if found.class_names else {}
    about = {
        "custom_load": False,
        "input_size": [found.recipe["data"].get("channels", 3), *found.size],
        "interpolation": shown["filter"],
        "crop_pct": shown["crop"] or 1.0,
        "crop_mode": "center" if shown["crop"] else "squash",
        "mean": shown["mean"],
        "std": shown["std"],
        "fixed_input_size": "pos_embedding" in found.params,
        "num_classes": classes(found),
        "first_conv": first_conv,
        "classifier": classifier,
    }
    return {
        **({"architecture": architecture} if architecture else {}),
        "num_classes": classes(found),
        **more,
        "model_args": dict(arguments),
        "pretrained_cfg": about,
        **labels,
    }


def torch_files(arrays: Mapping[str, np.ndarray], config: Mapping[str, Any], lines: tuple[str, ...] = ()) -> Written:
    """A safetensors file as torch programs want it, with its configuration beside it."""
    return Written(arrays, config, {"format": "pt"}, lines)
