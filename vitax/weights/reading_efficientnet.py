"""Weight files of EfficientNet: the published size, or else every stage, from shapes."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitax.checkpoint.names import efficientnet
from vitax.checkpoint.names.layout import Constants, Layout
from vitax.core.errors import UserError
from vitax.models.efficientnet import EfficientNet
from vitax.models.efficientnet_sizes import SIZES, STAGES, scaled_channels
from vitax.weights import images
from vitax.weights.family import Family, Shaped, Size

Arrays = Mapping[str, np.ndarray]
_KERNELS = tuple(row[0] for row in STAGES)
_STRIDES = tuple(row[1] for row in STAGES)


def shape(layout: Layout, constants: Constants, arrays: Arrays, hint: Size | None) -> Shaped:
    """An EfficientNet, which takes images of any size."""
    for name in ("stem/conv/kernel", "top/conv/kernel"):
        if name not in arrays:
            raise UserError(f"{layout.title}: {name} is missing from the file.")
    stages, squeeze = _stages(layout, arrays, constants.model.get("strides"))
    ends = {"stem_channels": arrays["stem/conv/kernel"].shape[-1], "top_channels": arrays["top/conv/kernel"].shape[-1]}
    published = _published(stages, ends)
    if layout.name == efficientnet.HUGGING_FACE.name:
        rows = [row[1] for row in stages], [row[3] for row in stages]
        efficientnet.check_residuals(layout.title, ends["stem_channels"], *rows)
    model = {
        "kind": "efficientnet",
        **(published or {"stages": stages, **ends}),
        "squeeze": squeeze,
        "num_classes": arrays["head/bias"].shape[0] if "head/bias" in arrays else 0,
        **{k: v for k, v in constants.model.items() if k != "strides"},
    }
    lines = () if published else ("size: none of the published; every stage is written out",)
    size = hint or constants.image_size or _native(model)
    return Shaped(arrays, model, size, arrays["stem/conv/kernel"].shape[2], lines)


def _stages(
    layout: Layout, arrays: Arrays, strides: tuple[int, ...] | None
) -> tuple[tuple[tuple[int, ...], ...], float]:
    """Rows of ``EfficientNet.stages``, and the width of squeeze as a part of what enters a block."""
    blocks: dict[int, set[str]] = {}
    for name in arrays:
        if match := re.match(r"stage_(\d+)/(block_\d+)/", name):
            blocks.setdefault(int(match[1]), set()).add(match[2])
    entering, rows, widest = arrays["stem/conv/kernel"].shape[-1], [], (0, 0)
    kernels = []
    for stage in sorted(blocks):
        first = f"stage_{stage}/block_01"
        try:
            depthwise, project = (arrays[f"{first}/{part}/kernel"] for part in ("depthwise", "project"))
        except KeyError as missing:
            raise UserError(f"{layout.title}: {missing.args[0]} is missing from the file.") from missing
        inside, leaving = depthwise.shape[-1], project.shape[-1]
        kernels.append(depthwise.shape[0])
        rows.append((depthwise.shape[0], inside // entering, leaving, len(blocks[stage])))
        if f"{first}/squeeze/bias" in arrays:
            widest = max(widest, (entering, arrays[f"{first}/squeeze/bias"].shape[0]))
        entering = leaving
    if strides is None:
        if tuple(kernels) != _KERNELS:
            raise UserError(
                f"{layout.title}: its stages have kernels of {kernels}, an EfficientNet has {list(_KERNELS)}, "
                "and strides are not in the file."
            )
        strides = _STRIDES
    if len(strides) != len(rows):
        raise UserError(f"{layout.title}: {len(strides)} strides in config.json, {len(rows)} stages in the file.")
    stages = tuple((k, stride, e, c, n) for (k, e, c, n), stride in zip(rows, strides))
    return stages, _ratio(*widest)


def _ratio(entering: int, width: int) -> float:
    """The squeeze: a quarter wherever that gives the width (of one channel, too)."""
    if not width:
        return 0.0
    return 0.25 if width == max(1, entering // 4) else width / entering


def _published(stages: tuple[tuple[int, ...], ...], ends: Mapping[str, int]) -> dict[str, Any] | None:
    """The factors that scale B0 to these stages."""
    for size in SIZES.values():
        for fixed in (False, True):
            fields = {"width_factor": size.width_factor, "depth_factor": size.depth_factor, "fixed_ends": fixed}
            model = EfficientNet(**fields)  # type: ignore[arg-type]
            channels = [scaled_channels(row[3], size.width_factor) for row in STAGES]
            scaled = tuple((*row[:3], c, n) for row, c, n in zip(STAGES, channels, model.blocks))
            outer = 1.0 if fixed else size.width_factor
            same = all(scaled_channels(getattr(EfficientNet, name), outer) == wanted for name, wanted in ends.items())
            if scaled == stages and same:
                return fields if fixed else {k: v for k, v in fields.items() if k != "fixed_ends"}
    return None


def _native(model: Mapping[str, Any]) -> Size:
    side = next(
        (
            s.image_size
            for s in SIZES.values()
            if s.width_factor == model.get("width_factor") and s.depth_factor == model.get("depth_factor")
        ),
        224,
    )
    return side, side


FAMILY = Family(
    shape=shape,
    recipe=images.recipe,
    architecture=(
        *("width_factor", "depth_factor", "fixed_ends", "squeeze"),
        *("stages", "stem_channels", "top_channels"),
    ),
    numerics=("padding", "norm_eps", "norm_momentum", "activation"),
)
