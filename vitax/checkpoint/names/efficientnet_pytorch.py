"""EfficientNet by the names of efficientnet_pytorch, and of its sister for Lite models.

Both hold what TensorFlow trained; the blocks of all stages are one row.

Reference: efficientnet-pytorch 0.7.1, efficientnet-lite-pytorch 0.1.0, ``EfficientNet.state_dict()``.
"""

import itertools
import re
from collections.abc import Mapping

from vitax.checkpoint.convert import Rule, squeeze
from vitax.checkpoint.files import WeightFile
from vitax.checkpoint.names.efficientnet import ORIGINAL
from vitax.checkpoint.names.layout import HALF, IMAGENET_MEAN, IMAGENET_STD, Constants, Layout
from vitax.checkpoint.names.timm import HWIO, MATRIX, dense, norm

_OURS, _THEIRS = "stage_{s+1}/block_{b+1:02}", "_stages.{s}.{b}"
# A layer of squeeze and excite is a convolution of 1x1 there.
_POINT = squeeze(2, 3).then(MATRIX)


def _layer(conv: str, its_norm: str, their_conv: str, their_norm: str) -> list[Rule]:
    return [
        Rule(f"{conv}/kernel", f"{their_conv}.weight", HWIO),
        *norm(its_norm, their_norm),
        Rule(f"batch_stats/{its_norm}/mean", f"{their_norm}.running_mean"),
        Rule(f"batch_stats/{its_norm}/var", f"{their_norm}.running_var"),
    ]


def table() -> tuple[Rule, ...]:
    """The rules, once ``staged`` has renamed the blocks."""
    parts = (
        ("expand", "_expand_conv", "_bn0"),
        ("depthwise", "_depthwise_conv", "_bn1"),
        ("project", "_project_conv", "_bn2"),
    )
    inner = [_layer(f"{_OURS}/{p}", f"{_OURS}/{p}_norm", f"{_THEIRS}.{c}", f"{_THEIRS}.{n}") for p, c, n in parts]
    return (
        *_layer("stem/conv", "stem/norm", "_conv_stem", "_bn0"),
        *(rule for rules in inner for rule in rules),
        *dense(f"{_OURS}/squeeze", f"{_THEIRS}._se_reduce", _POINT),
        *dense(f"{_OURS}/excite", f"{_THEIRS}._se_expand", _POINT),
        *_layer("top/conv", "top/norm", "_conv_head", "_bn1"),
        *dense("head", "_fc"),
    )


def staged(file: WeightFile) -> Mapping[str, str]:
    """``_blocks.N`` -> ``_stages.S.B``: a stage ends where channels, kernel or expansion change."""
    kinds: dict[int, tuple[int, int, bool]] = {}
    for name, array in file.arrays.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\._depthwise_conv\.weight", name):
            project = file.arrays.get(f"_blocks.{match[1]}._project_conv.weight")
            expands = f"_blocks.{match[1]}._expand_conv.weight" in file.arrays
            kinds[int(match[1])] = (array.shape[-1], project.shape[0] if project is not None else 0, expands)
    places: dict[str, str] = {}
    for stage, (_, numbers) in enumerate(itertools.groupby(sorted(kinds), key=lambda number: kinds[number])):
        places |= {f"_blocks.{number}.": f"_stages.{stage}.{block}." for block, number in enumerate(numbers)}
    prefixes = {name: match[0] for name in file.arrays if (match := re.match(r"_blocks\.\d+\.", name))}
    return {name: places[p] + name.removeprefix(p) for name, p in prefixes.items() if p in places}


def _constants(file: WeightFile) -> Constants:
    """Lite models are those without squeeze and excite."""
    lite = not any("_se_reduce" in name for name in file.arrays)
    return Constants(
        model={**ORIGINAL, "activation": "relu6" if lite else "silu"},
        mean=HALF if lite else IMAGENET_MEAN,
        std=HALF if lite else IMAGENET_STD,
        resize="bicubic_antialias",
        crop=0.875,
        notes=("no squeeze and excite: a Lite model, ReLU6, pixels from -1 to 1",) if lite else (),
    )


LAYOUT = Layout(
    name="efficientnet_pytorch",
    title="efficientnet_pytorch",
    family="efficientnet",
    required=("_conv_stem.weight", "_blocks.{n}._depthwise_conv.weight", "_conv_head.weight"),
    table=table(),
    constants=_constants,
    rename=staged,
    left_out={r"\.num_batches_tracked$": "counts steps of training, which running averages do not need"},
)
