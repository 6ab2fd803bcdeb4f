"""Weight files of ViTs and their hybrids: tokens and positions put as ours, constructor fields from shapes."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vitax.checkpoint.files import WeightFile
from vitax.checkpoint.names import tokens
from vitax.checkpoint.names.layout import Constants, VitLayout
from vitax.core.errors import UserError
from vitax.models.vit_sizes import SIZES, stem_reduction
from vitax.weights import images
from vitax.weights.family import Family, Shaped, Size

# What is not learned stays open in files: the value at the start matters to nobody afterwards.
_LAYER_SCALE_START = 1e-5
_HEAD_DIM = 64
# Of the encoder: those of a hybrid's stem come behind the number of a stage.
_BLOCK = re.compile(r"(?<!\d\.)\b(?:blocks|layer)\.(\d+)\.")
Arrays = Mapping[str, np.ndarray]


def sizes(layout: VitLayout, file: WeightFile, constants: Constants) -> tuple[dict[str, int], list[str]]:
    """Heads, where the shapes do not have them, and how they were found."""
    if layout.width is None:
        return {}, []
    width = int(file.arrays[layout.width].shape[-1])
    if constants.model.get("num_heads"):
        return {"num_heads": constants.model["num_heads"]}, []
    depth = len({m[1] for name in file.arrays if (m := _BLOCK.search(name))})
    known = {s.num_heads for s in SIZES.values() if (s.width, s.depth) == (width, depth)}
    if len(known) == 1:
        return {"num_heads": known.pop()}, [f"num_heads: not in the file; that of the published size of width {width}"]
    if width % _HEAD_DIM:
        raise UserError(
            f"{file.path}: the number of heads is not in the file, and its width {width} is no multiple of "
            f"{_HEAD_DIM}; put its config.json beside it."
        )
    line = (
        f"num_heads: {width // _HEAD_DIM}, taking heads to be {_HEAD_DIM} wide: no config.json beside the file says it"
    )
    return {"num_heads": width // _HEAD_DIM}, [line]


def shape(layout: VitLayout, constants: Constants, arrays: Arrays, hint: Size | None) -> Shaped:
    """A ViT, or a hybrid where there is a stem."""
    for name in ("embedding/kernel", "pos_embedding"):
        if name not in arrays:
            raise UserError(f"{layout.title}: {name} is missing from the file.")
    stem = _stem(arrays)
    height, width = arrays["embedding/kernel"].shape[:2]
    stride = (height * stem.reduction, width * stem.reduction)
    pool = constants.model.get("pool") or _pool(arrays)
    variables, lines, grid = _folded(arrays, pool, layout, constants, hint, stride)
    model = _model(variables, pool, layout, constants) | stem.fields
    return Shaped(
        variables=variables,
        model=model,
        image_size=(grid[0] * stride[0], grid[1] * stride[1]),
        channels=stem.channels,
        lines=tuple(lines),
        grid=grid,
    )


class _Stem(NamedTuple):
    """The residual network in front of a hybrid: fields, pixels that make a place of its maps, image channels."""

    fields: dict[str, Any]
    reduction: int
    channels: int


def _stem(arrays: Arrays) -> _Stem:
    root = arrays.get("stem/root/kernel")
    if root is None:
        return _Stem({}, 1, arrays["embedding/kernel"].shape[2])
    units: dict[int, set[str]] = {}
    for name in arrays:
        if match := re.match(r"stem/block_(\d+)/unit_(\d+)/", name):
            units.setdefault(int(match[1]), set()).add(match[2])
    blocks = tuple(len(units[stage]) for stage in sorted(units))
    fields = {"kind": "hybrid", "stem_blocks": blocks, "stem_width": root.shape[-1]}
    return _Stem(fields, stem_reduction(blocks), root.shape[2])


def _pool(arrays: Arrays) -> str:
    return "map" if "map_head/probe" in arrays else "tok" if "cls" in arrays else "gap"


def _folded(
    arrays: Arrays,
    pool: str,
    layout: VitLayout,
    constants: Constants,
    hint: Size | None,
    stride: Size,
) -> tuple[dict[str, np.ndarray], list[str], Size]:
    """Tokens and positions as ours, and the grid that the positions are for."""
    problem: UserError | None = None
    for size in dict.fromkeys((constants.image_size, None, hint)):
        grid = (size[0] // stride[0], size[1] // stride[1]) if size else None
        try:
            params, lines = tokens.fold(arrays, pool, grid[0] * grid[1] if grid else None, layout.cls_slot)
        except UserError as error:
            problem = problem or error
            continue
        slots = params["pos_embedding"].shape[1] - (pool == "tok")
        grid = grid or tokens.grid_of(slots)
        if grid is not None and grid[0] * grid[1] == slots:
            return params, lines, grid
    raise problem or UserError(
        f"{layout.title}: its {slots} patches make no square; give the size of the images with "
        "--config.data.image_size=(HEIGHT,WIDTH)."
    )


def _model(params: Arrays, pool: str, layout: VitLayout, constants: Constants) -> dict[str, Any]:
    """Constructor fields of the ViT, from shapes."""
    kernel, query = params["embedding/kernel"], params["encoder/block_00/attention/query/kernel"]
    patch = kernel.shape[:2]
    hidden = params["pre_logits/kernel"].shape[1] if "pre_logits/kernel" in params else 0
    fields: dict[str, Any] = {
        "kind": "vit",
        "width": kernel.shape[-1],
        "depth": len({name.split("/")[1] for name in params if name.startswith("encoder/block_")}),
        "mlp_dim": params["encoder/block_00/mlp/in/kernel"].shape[1],
        "num_heads": query.shape[1],
        "patch_size": patch[0] if patch[0] == patch[1] else patch,
        "num_classes": params["head/bias"].shape[0] if "head/bias" in params else 0,
        "pool": pool,
        **{k: v for k, v in constants.model.items() if k not in ("num_heads", "pool")},
    }
    if layout.norm_after_pool:
        if pool != "gap":
            raise UserError(f"a norm after pooling is for mean pooling alone, and the file pools by {pool}.")
        fields["norm_after_pool"] = True
    if "registers" in params:
        fields["num_registers"] = params["registers"].shape[1]
    if "encoder/block_00/layer_scale_1" in params:
        fields["layer_scale"] = _LAYER_SCALE_START
    if hidden:
        fields["pre_logits"] = True if hidden == kernel.shape[-1] else hidden
    return fields


FAMILY = Family(
    shape=shape,
    recipe=images.recipe,
    architecture=("width", "depth", "mlp_dim", "num_heads", "stem_blocks", "stem_width"),
    numerics=(
        *("gelu", "norm_eps", "pool", "norm_after_pool"),
        *("stem_groups", "stem_norm_eps", "stem_std_eps", "stem_std_eps_added_to"),
    ),
    sizes=sizes,
)
