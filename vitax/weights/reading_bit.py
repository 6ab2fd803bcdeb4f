"""Weight files of BiT: constructor fields from shapes."""

import re
from collections.abc import Mapping

import numpy as np

from vitax.checkpoint.names.layout import Constants, Layout
from vitax.core.errors import UserError
from vitax.weights import images
from vitax.weights.family import Family, Shaped, Size

# Channels of the root at width factor 1.
_ROOT = 64


def shape(layout: Layout, constants: Constants, arrays: Mapping[str, np.ndarray], hint: Size | None) -> Shaped:
    """A BiT, which takes images of any size."""
    if "root/kernel" not in arrays:
        raise UserError(f"{layout.title}: root/kernel is missing from the file.")
    root = arrays["root/kernel"]
    units: dict[int, set[str]] = {}
    for name in arrays:
        if match := re.match(r"block_(\d+)/unit_(\d+)/", name):
            units.setdefault(int(match[1]), set()).add(match[2])
    channels = root.shape[-1]
    factor = channels // _ROOT if channels % _ROOT == 0 else 1
    fields = {
        "kind": "bit",
        "blocks": tuple(len(units[stage]) for stage in sorted(units)),
        "width_factor": factor,
        "root_width": channels // factor,
        "num_classes": arrays["head/bias"].shape[0] if "head/bias" in arrays else 0,
        **constants.model,
    }
    return Shaped(arrays, fields, hint or constants.image_size or (224, 224), root.shape[2])


FAMILY = Family(
    shape=shape,
    recipe=images.recipe,
    architecture=("blocks", "width_factor", "root_width"),
    numerics=("num_groups", "norm_eps", "std_eps"),
)
