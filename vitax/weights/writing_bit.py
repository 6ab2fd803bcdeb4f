"""BiT in the names of Google's files, timm and Hugging Face."""

from typing import Any

from vitax.checkpoint.names import bit
from vitax.core.errors import UserError
from vitax.models.bit_sizes import BLOCKS
from vitax.weights.reading import Published
from vitax.weights.writing_parts import (
    NO_ARCHITECTURE,
    Written,
    classes,
    hf_labels,
    preprocessor,
    renamed,
    timm_config,
    told,
    torch_files,
)

# Of timm's names resnetv2_*_bit.
_TIMM = ("50x1", "50x3", "101x1", "101x3", "152x2", "152x4")


def _check_groups(found: Published) -> None:
    groups = found.fields["num_groups"]
    if groups != bit.NUMERICS_TORCH["num_groups"]:
        raise UserError(f"Google's BiT and timm's have norms of 32 groups, not {groups}; --to hf has any.")


def npz(found: Published) -> Written:
    """Google's names."""
    _check_groups(found)
    lines = told(found.fields, bit.NUMERICS_GOOGLE, "an npz has no place for it")
    return Written(renamed(bit.GOOGLE, found, found.params), lines=lines)


def to_timm(found: Published) -> Written:
    """timm's ``resnetv2_*_bit``."""
    _check_groups(found)
    model = found.fields
    lines = told(model, bit.NUMERICS_TORCH, "config.json cannot say it")
    arrays = renamed(bit.TIMM, found, found.params)
    layers = {blocks: name.removeprefix("R") for name, blocks in BLOCKS.items()}.get(tuple(model["blocks"]), "")
    size = f"{layers}x{model['width_factor']}" if model["root_width"] == 64 else ""
    architecture = f"resnetv2_{size}_bit" if size in _TIMM else None
    if architecture is None:
        what = f"of {list(model['blocks'])} units over a root of {model['root_width'] * model['width_factor']} channels"
        lines += (f"{NO_ARCHITECTURE} {what}",)
    arguments = {"in_chans": found.recipe["data"].get("channels", 3)}
    config = timm_config(found, architecture, "stem.conv", "head.fc", arguments)
    return torch_files(arrays, {"config.json": config}, lines)


def hugging_face(found: Published) -> Written:
    """transformers' ``BitForImageClassification``, or ``BitModel`` without a head."""
    model, head = found.fields, bool(classes(found))
    width = model["root_width"] * model["width_factor"]
    config: dict[str, Any] = {
        "architectures": ["BitForImageClassification" if head else "BitModel"],
        "model_type": "bit",
        "num_channels": found.recipe["data"].get("channels", 3),
        "embedding_size": width,
        "hidden_sizes": [4 * width * 2**i for i in range(len(model["blocks"]))],
        "depths": list(model["blocks"]),
        "layer_type": "preactivation",
        "hidden_act": "relu",
        "global_padding": None,
        "embedding_dynamic_padding": False,
        "num_groups": model["num_groups"],
        "output_stride": 32,
        "width_factor": 1,
        **hf_labels(found),
        "dtype": "float32",
    }
    theirs = {name: value for name, value in bit.NUMERICS_TORCH.items() if name != "num_groups"}
    arrays = renamed(bit.HUGGING_FACE if head else bit.HUGGING_FACE_MODEL, found, found.params)
    lines = told(model, theirs, "config.json cannot say it")
    return torch_files(arrays, {"config.json": config, **preprocessor(found)}, lines)
