"""EfficientNet in the names of timm and Hugging Face."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vitax.checkpoint.names import efficientnet
from vitax.core.errors import UserError
from vitax.models.efficientnet import EfficientNet
from vitax.models.efficientnet_sizes import SIZES, STAGES, scaled_channels
from vitax.weights.reading import Published
from vitax.weights.writing_parts import (
    NO_ARCHITECTURE,
    Written,
    classes,
    hf_labels,
    preprocessor,
    renamed,
    timm_config,
    torch_files,
)


def _depths(model: Mapping[str, Any]) -> tuple[int, ...]:
    fields = {name: model[name] for name in ("depth_factor", "fixed_ends")}
    return EfficientNet(stages=tuple(map(tuple, model["stages"])), **fields).blocks


def to_timm(found: Published) -> Written:
    """timm's ``tf_efficientnet_*`` where padding is TensorFlow's, else ``efficientnet_*``."""
    model = found.fields
    arrays = renamed(efficientnet.TIMM, found, found.params)
    tensorflow = model["padding"] == "same"
    name = _timm_name(model)
    arguments: dict[str, Any] = {
        "in_chans": found.recipe["data"].get("channels", 3),
        "bn_eps": model["norm_eps"],
        "bn_momentum": round(1.0 - model["norm_momentum"], 9),  # PyTorch's convention
    }
    if name is None:
        arguments |= {"pad_type": "same" if tensorflow else "", "act_layer": model["activation"]}
    architecture = "tf_" * tensorflow + name if name else None
    config = timm_config(found, architecture, "conv_stem", "classifier", arguments)
    lines = () if name else (f"{NO_ARCHITECTURE} of these stages",)
    return torch_files(_counted(arrays), {"config.json": config}, lines)


def _counted(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With counters of training steps, which strict readers miss: from 0."""
    norms = [name.removesuffix("running_mean") for name in arrays if name.endswith("running_mean")]
    return arrays | {f"{name}num_batches_tracked": np.zeros((), np.int64) for name in norms}


def _timm_name(model: Mapping[str, Any]) -> str | None:
    """``efficientnet_b0``: B0 scaled by the factors of a published size."""
    lite = model["fixed_ends"]
    squeeze, activation = (0.0, "relu6") if lite else (0.25, "silu")
    plain = (model["stages"], model["stem_channels"], model["top_channels"])
    if plain != (STAGES, EfficientNet.stem_channels, EfficientNet.top_channels):
        return None
    if (model["squeeze"], model["activation"]) != (squeeze, activation):
        return None
    for name, size in SIZES.items():
        if (size.width_factor, size.depth_factor) == (model["width_factor"], model["depth_factor"]):
            if not lite:
                return f"efficientnet_{name.lower()}"
            return f"efficientnet_lite{name[1:]}" if name in ("B0", "B1", "B2", "B3", "B4") else None
    return None


def hugging_face(found: Published) -> Written:
    """transformers' ``EfficientNetForImageClassification``, or ``EfficientNetModel`` without a head."""
    model, head = found.fields, bool(classes(found))
    if model["padding"] != "same":
        raise UserError("--to hf: transformers pads as TensorFlow does, the model symmetrically; --to timm has both.")
    if not model["squeeze"]:
        raise UserError(
            "--to hf: transformers' EfficientNet has squeeze and excite in every block; --to timm has Lite."
        )
    depths, strides = _depths(model), [row[1] for row in model["stages"]]
    height, width = found.size
    config: dict[str, Any] = {
        "architectures": ["EfficientNetForImageClassification" if head else "EfficientNetModel"],
        "model_type": "efficientnet",
        "num_channels": found.recipe["data"].get("channels", 3),
        "image_size": height if height == width else [height, width],
        **_hf_scaling(model, depths),
        "depth_divisor": 8,
        "kernel_sizes": [row[0] for row in model["stages"]],
        "strides": strides,
        "expand_ratios": [row[2] for row in model["stages"]],
        "depthwise_padding": efficientnet.depthwise_padding(height, strides, depths),
        "squeeze_expansion_ratio": model["squeeze"],
        "hidden_act": "swish" if model["activation"] == "silu" else model["activation"],
        "pooling_type": "mean",
        "batch_norm_eps": model["norm_eps"],
        "batch_norm_momentum": model["norm_momentum"],
        **hf_labels(found),
        "dtype": "float32",
    }
    arrays = renamed(efficientnet.HUGGING_FACE if head else efficientnet.HUGGING_FACE_MODEL, found, found.params)
    back = efficientnet.in_a_row(list(arrays), depths)
    images = preprocessor(found, "EfficientNetImageProcessor")
    images["preprocessor_config.json"]["include_top"] = False  # it would divide by the deviation twice
    note = efficientnet.padding_note(found.size, strides, depths, config["depthwise_padding"])
    lines = (note,) if note else ()
    arrays = {back.get(name, name): x for name, x in arrays.items()}
    return torch_files(_counted(arrays), {"config.json": config, **images}, lines)


def _hf_scaling(model: Mapping[str, Any], depths: tuple[int, ...]) -> dict[str, Any]:
    """Channels and blocks as transformers scales them: a stem of 32, a top of 1280 and all stages by one factor."""
    ends = 1.0 if model["fixed_ends"] else model["width_factor"]
    stem, top = (scaled_channels(model[name], ends) for name in ("stem_channels", "top_channels"))
    channels = [scaled_channels(row[3], model["width_factor"]) for row in model["stages"]]
    efficientnet.check_residuals("--to hf", stem, [row[1] for row in model["stages"]], channels)
    repeats = [row[4] for row in model["stages"]]
    plain = not model["fixed_ends"]
    factors = (model["width_factor"], top / 1280, stem / 32)
    for factor in factors:
        base = [row[3] if factor == factors[0] else round(c / factor) for row, c in zip(model["stages"], channels)]
        scaled = [scaled_channels(c, factor) for c in (32, 1280, *base)]
        if scaled == [stem, top, *channels]:
            return {
                "width_coefficient": factor,
                "depth_coefficient": model["depth_factor"] if plain else 1.0,
                "num_block_repeats": repeats if plain else list(depths),
                "in_channels": [32, *base[:-1]],
                "out_channels": base,
                "hidden_dim": top,
            }
    raise UserError(
        f"--to hf: transformers scales a stem of 32 and a top of 1280 channels by one factor, which gives no {stem} "
        f"and {top}; --to timm has them."
    )
