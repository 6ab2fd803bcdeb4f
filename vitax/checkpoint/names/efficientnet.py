"""EfficientNet: timm's names, and Hugging Face's, where the blocks of all stages are one row.

Reference: timm 1.0.31, ``timm.models.efficientnet``; transformers 5.23.0, model ``efficientnet``.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vitax.checkpoint.convert import Rule, squeeze
from vitax.checkpoint.files import WeightFile
from vitax.checkpoint.names import preparation
from vitax.checkpoint.names.layout import IMAGENET_MEAN, IMAGENET_STD, Constants, Layout
from vitax.checkpoint.names.timm import HWIO, MATRIX, dense, norm
from vitax.core.errors import UserError, pick

_BLOCK = "stage_{s+1}/block_{b+1:02}"
# A layer of squeeze and excite is a convolution of 1x1 there.
_POINT = squeeze(2, 3).then(MATRIX)
_COUNTER = {r"\.num_batches_tracked$": "counts steps of training, which running averages do not need"}


def _batch_norm(ours: str, theirs: str) -> list[Rule]:
    return [
        *norm(ours, theirs),
        Rule(f"batch_stats/{ours}/mean", f"{theirs}.running_mean"),
        Rule(f"batch_stats/{ours}/var", f"{theirs}.running_var"),
    ]


def _conv(ours: str, theirs: str) -> list[Rule]:
    return [Rule(f"{ours}/kernel", f"{theirs}.weight", HWIO)]


def _inner(ours: str, parts: Sequence[tuple[str, str, str]]) -> list[Rule]:
    """Of a block: (our layer, its convolution there, its norm there)."""
    rules = []
    for part, conv, its_norm in parts:
        rules += [*_conv(f"{ours}/{part}", conv), *_batch_norm(f"{ours}/{part}_norm", its_norm)]
    return rules


def timm_table() -> tuple[Rule, ...]:
    """The rules; the blocks of the first stage do not expand, so their layers count otherwise."""
    first, ours = "stage_1/block_{b+1:02}", _BLOCK
    one, any_ = "blocks.0.{b}", "blocks.{s}.{b}"
    return (
        *_conv("stem/conv", "conv_stem"),
        *_batch_norm("stem/norm", "bn1"),
        *_inner(first, (("depthwise", f"{one}.conv_dw", f"{one}.bn1"), ("project", f"{one}.conv_pw", f"{one}.bn2"))),
        *_inner(
            ours,
            (
                ("expand", f"{any_}.conv_pw", f"{any_}.bn1"),
                ("depthwise", f"{any_}.conv_dw", f"{any_}.bn2"),
                ("project", f"{any_}.conv_pwl", f"{any_}.bn3"),
            ),
        ),
        *dense(f"{ours}/squeeze", f"{any_}.se.conv_reduce", _POINT),
        *dense(f"{ours}/excite", f"{any_}.se.conv_expand", _POINT),
        *_conv("top/conv", "conv_head"),
        *_batch_norm("top/norm", "bn2"),
        *dense("head", "classifier"),
    )


# What ``blocks.N`` is called here before it meets the table.
_ROW, _STAGED = "encoder.blocks", "encoder.stages"


def hugging_face_table(prefix: str) -> tuple[Rule, ...]:
    """The rules, once ``staged`` has renamed the blocks; ``prefix`` is ``efficientnet.`` where there is a head."""
    ours, theirs = _BLOCK, f"{prefix}{_STAGED}.{{s}}.{{b}}"
    return (
        *_conv("stem/conv", f"{prefix}embeddings.convolution"),
        *_batch_norm("stem/norm", f"{prefix}embeddings.batchnorm"),
        *_inner(
            ours,
            (
                ("expand", f"{theirs}.expansion.expand_conv", f"{theirs}.expansion.expand_bn"),
                ("depthwise", f"{theirs}.depthwise_conv.depthwise_conv", f"{theirs}.depthwise_conv.depthwise_norm"),
                ("project", f"{theirs}.projection.project_conv", f"{theirs}.projection.project_bn"),
            ),
        ),
        *dense(f"{ours}/squeeze", f"{theirs}.squeeze_excite.reduce", _POINT),
        *dense(f"{ours}/excite", f"{theirs}.squeeze_excite.expand", _POINT),
        *_conv("top/conv", f"{prefix}encoder.top_conv"),
        *_batch_norm("top/norm", f"{prefix}encoder.top_bn"),
        *dense("head", "classifier"),
    )


def staged(file: WeightFile) -> Mapping[str, str]:
    """``blocks.N`` -> ``stages.S.B``, by the depths in config.json."""
    depths = _depths(file.config) or _depths_by_shape(file)
    return _moved(
        file.arrays,
        rf"((?:efficientnet\.)?){_ROW}\.(\d+)\.",
        _STAGED,
        {n: place for place, n in _places(depths).items()},
    )


def _depths(config: Mapping[str, Any]) -> list[int]:
    """Blocks of each stage; [] where the configuration does not say."""
    factor = config.get("depth_coefficient")
    return [math.ceil(factor * n) for n in config.get("num_block_repeats", ())] if factor else []


def _depths_by_shape(file: WeightFile) -> list[int]:
    """A stage ends where channels, kernel or expansion change."""
    kinds: dict[int, tuple[int, ...]] = {}
    for name, array in file.arrays.items():
        if match := re.fullmatch(rf"(.*{_ROW}\.(\d+))\.depthwise_conv\.depthwise_conv\.weight", name):
            project = file.arrays.get(f"{match[1]}.projection.project_conv.weight")
            expands = f"{match[1]}.expansion.expand_conv.weight" in file.arrays
            kinds[int(match[2])] = (array.shape[-1], project.shape[0] if project is not None else 0, expands)
    return [len(list(blocks)) for _, blocks in itertools.groupby(kinds[number] for number in sorted(kinds))]


def _places(depths: Sequence[int]) -> dict[str, str]:
    """``S.B`` -> ``N``."""
    pairs = [(s, b) for s, depth in enumerate(depths) for b in range(depth)]
    return {f"{s}.{b}": str(i) for i, (s, b) in enumerate(pairs)}


def in_a_row(names: Sequence[str], depths: Sequence[int]) -> dict[str, str]:
    """The inverse of ``staged``, for stages of these depths."""
    return _moved(names, rf"((?:efficientnet\.)?){_STAGED}\.(\d+\.\d+)\.", _ROW, _places(depths))


def _moved(names: Any, pattern: str, to: str, places: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name in names:
        match = re.match(pattern, name)
        if match and match[2] in places:
            found[name] = f"{match[1]}{to}.{places[match[2]]}.{name[match.end() :]}"
    return found


# As TensorFlow trained them, and as PyTorch did: not interchangeable.
ORIGINAL = {"padding": "same", "norm_eps": 1e-3, "norm_momentum": 0.99}
PORTED = {"padding": "symmetric", "norm_eps": 1e-5, "norm_momentum": 0.9}
_IMAGES = Constants(mean=IMAGENET_MEAN, std=IMAGENET_STD, resize="bicubic_antialias", crop=0.875)
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "relu6": "relu6"}
_PADDINGS = {"same": "same", "": "symmetric"}


def _timm(file: WeightFile) -> Constants:
    """Whether TensorFlow or PyTorch trained it is in the name alone: ``tf_efficientnet_b0``."""
    name = preparation.architecture_of(file)
    arguments: Mapping[str, Any] = file.config.get("model_args") or {}
    tensorflow = name.startswith("tf_") or "efficientnet" not in name
    model = dict(ORIGINAL if tensorflow else PORTED)
    model["activation"] = "relu6" if "lite" in name else "silu"
    if "act_layer" in arguments:
        model["activation"] = pick(_ACTIVATIONS, str(arguments["act_layer"]), f"{file.path}: act_layer")
    if "bn_eps" in arguments:
        model["norm_eps"] = float(arguments["bn_eps"])
    if "bn_momentum" in arguments:
        model["norm_momentum"] = 1.0 - float(arguments["bn_momentum"])  # PyTorch's convention
    if "pad_type" in arguments:
        model["padding"] = pick(_PADDINGS, str(arguments["pad_type"]), f"{file.path}: pad_type")
    default = _IMAGES
    if size := _published_size(name):
        default = dataclasses.replace(default, image_size=(size, size))
    found = preparation.timm(file, default, model, "no config.json beside the file: pixels and crop are ImageNet's")
    if "efficientnet" in name or {"pad_type", "bn_eps"} <= arguments.keys():
        return found
    guess = (
        "neither config.json nor the file's name says whether TensorFlow trained it (tf_efficientnet_*) or PyTorch: "
        "taken as TensorFlow's; PyTorch's want --config.model.padding=symmetric --config.model.norm_eps=1e-5"
    )
    return dataclasses.replace(found, notes=(*found.notes, guess))


def _published_size(name: str) -> int | None:
    """Side of the images of timm's names without a configuration."""
    sizes = {"b0": 224, "b1": 240, "b2": 260, "b3": 300, "b4": 380, "b5": 456, "b6": 528, "b7": 600, "l2": 800}
    return sizes.get(name.rpartition("efficientnet_")[2])


def _hugging_face(file: WeightFile) -> Constants:
    config = file.config
    if config.get("pooling_type", "mean") != "mean":
        raise preparation.refuse(file, f"pooling_type {config['pooling_type']}", "vitax's EfficientNet takes the mean")
    model = {
        **ORIGINAL,
        "norm_eps": config.get("batch_norm_eps", 1e-3),
        "activation": pick(_ACTIVATIONS, str(config.get("hidden_act", "swish")), f"{file.path}: hidden_act"),
    }
    if "strides" in config:
        model["strides"] = tuple(config["strides"])
    default = dataclasses.replace(_IMAGES, image_size=(224, 224))
    found = preparation.hugging_face(file, default, model, _NO_CONFIG)
    depths = _depths(config)
    if found.image_size is None or not depths or "strides" not in config:
        return found
    note = padding_note(found.image_size, config["strides"], depths, config.get("depthwise_padding") or ())
    return dataclasses.replace(found, notes=(*found.notes, *([note] if note else [])))


_NO_CONFIG = "no config.json beside the file: epsilon 1e-3 and images of 224 px are B0's"


def depthwise_padding(size: int, strides: Sequence[int], depths: Sequence[int]) -> list[int]:
    """Blocks that stride over maps of odd size: there TensorFlow pads alike on both sides.

    Args:
      size: side of the images.
      strides: of the stages.
      depths: blocks of the stages.
    """
    side, first, odd = -(-size // 2), 0, []
    for stride, depth in zip(strides, depths):
        if stride == 2:
            odd += [first] if side % 2 else []
            side = -(-side // 2)
        first += depth
    return odd


def check_residuals(where: str, entering: int, strides: Sequence[int], channels: Sequence[int]) -> None:
    """Refuses what Hugging Face's own code computes otherwise: a first block of a stage that could have a residual.

    No published size has one.

    Args:
      where: for the message.
      entering: channels of the stem.
      strides: of the stages.
      channels: that leave the stages.

    Raises:
      UserError: says which stage.
    """
    for stage, (before, stride, after) in enumerate(zip([entering, *channels], strides, channels), start=1):
        if stride == 1 and before == after:
            raise UserError(
                f"{where}: stage {stage} begins with {after} channels and stride 1 like what enters it. vitax and timm "
                "have a residual there, transformers has none."
            )


def padding_note(
    size: tuple[int, int], strides: Sequence[int], depths: Sequence[int], given: Sequence[int]
) -> str | None:
    """Where Hugging Face's own code pads otherwise than TensorFlow does, and we do; None where nowhere.

    Its stem pads as for an even size whatever the image, and blocks as ``given`` says.
    """
    needed = [depthwise_padding(side, strides, depths) for side in size]
    if all(n == list(given) for n in needed) and not any(side % 2 for side in size):
        return None
    return (
        f"padding: for images of {size[0]}x{size[1]} Hugging Face's own code pads otherwise than TensorFlow, which "
        "vitax follows; outputs there differ slightly"
    )


TIMM = Layout(
    name="timm",
    title="timm EfficientNet",
    family="efficientnet",
    required=("conv_stem.weight", "blocks.{s}.{b}.conv_dw.weight", "conv_head.weight"),
    table=timm_table(),
    constants=_timm,
    left_out=_COUNTER,
)


def _hugging_face_layout(title: str, prefix: str) -> Layout:
    return Layout(
        name="hf_efficientnet",
        title=title,
        family="efficientnet",
        required=(
            f"{prefix}embeddings.convolution.weight",
            f"{prefix}{_ROW}.{{n}}.depthwise_conv.depthwise_conv.weight",
        ),
        table=hugging_face_table(prefix),
        constants=_hugging_face,
        rename=staged,
        left_out=_COUNTER,
    )


HUGGING_FACE = _hugging_face_layout("Hugging Face EfficientNet", "efficientnet.")
HUGGING_FACE_MODEL = _hugging_face_layout("Hugging Face EfficientNet (without a head)", "")
LAYOUTS = (TIMM, HUGGING_FACE, HUGGING_FACE_MODEL)
