"""BiT: Google's files, timm's and Hugging Face's.

Reference: names of google-research/big_transfer's released files; timm 1.0.31,
``timm.models.resnetv2``; transformers 5.23.0, model ``bit``.
"""

import re
from collections.abc import Mapping

from vitax.checkpoint.convert import Rule, squeeze
from vitax.checkpoint.files import WeightFile
from vitax.checkpoint.names import preparation
from vitax.checkpoint.names.layout import HALF, Constants, Layout
from vitax.checkpoint.names.timm import HWIO, MATRIX, dense, norm

_UNIT = "block_{s+1}/unit_{u+1:02}"
# The authors' code adds 1e-10 to the variance of a kernel; torch ports add 1e-8.
NUMERICS_GOOGLE = {"norm_eps": 1e-5, "std_eps": 1e-10, "num_groups": 32}
NUMERICS_TORCH = {"norm_eps": 1e-5, "std_eps": 1e-8, "num_groups": 32}


def _google_norm(ours: str, theirs: str) -> list[Rule]:
    return [Rule(f"{ours}/scale", f"{theirs}/gamma"), Rule(f"{ours}/bias", f"{theirs}/beta")]


def google_table() -> tuple[Rule, ...]:
    """The rules of Google's files."""
    theirs = "resnet/block{s+1}/unit{u+1:02}"
    rules = [Rule("root/kernel", "resnet/root_block/standardized_conv2d/kernel")]
    for k, letter in enumerate("abc", start=1):
        rules += [Rule(f"{_UNIT}/conv_{k}/kernel", f"{theirs}/{letter}/standardized_conv2d/kernel")]
        rules += _google_norm(f"{_UNIT}/norm_{k}", f"{theirs}/{letter}/group_norm")
    return (
        *rules,
        Rule(f"{_UNIT}/proj/kernel", f"{theirs}/a/proj/standardized_conv2d/kernel"),
        *_google_norm("norm", "resnet/group_norm"),
        Rule("head/kernel", "resnet/head/conv2d/kernel", squeeze(0, 1)),
        Rule("head/bias", "resnet/head/conv2d/bias"),
    )


def torch_table(root: str, units: str, last_norm: str, head: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The rules of a torch port.

    Args:
      root: name of the first convolution.
      units: name of a unit, with ``{s}`` and ``{u}``.
      last_norm: name of the norm behind the last stage.
      head: rules of the head.
    """
    rules = [Rule("root/kernel", f"{root}.weight", HWIO)]
    for k in (1, 2, 3):
        rules += [Rule(f"{_UNIT}/conv_{k}/kernel", f"{units}.conv{k}.weight", HWIO)]
        rules += norm(f"{_UNIT}/norm_{k}", f"{units}.norm{k}")
    rules += [Rule(f"{_UNIT}/proj/kernel", f"{units}.downsample.conv.weight", HWIO)]
    return (*rules, *norm("norm", last_norm), *head)


def without_counters(file: WeightFile) -> Mapping[str, str]:
    """TensorFlow counts layers of one name: ``standardized_conv2d_17`` -> ``standardized_conv2d``."""
    counted = re.compile(r"(/standardized_conv2d)_\d+/")
    return {name: counted.sub(r"\1/", name) for name in file.arrays if counted.search(name)}


def _google(file: WeightFile) -> Constants:
    """Files tuned on ILSVRC-2012 saw 480 px squashed (BiT-HyperRule); the others' own size is 224."""
    tuned = "ILSVRC2012" in file.path.stem
    side = 480 if tuned else 224
    note = (
        f"images: {side} px, as {'BiT-HyperRule tunes on ILSVRC-2012' if tuned else 'in pre-training'}, whole and "
        "squashed: the file does not say it, and any size works"
    )
    return Constants(model=NUMERICS_GOOGLE, image_size=(side, side), notes=(note,))


_TIMM = Constants(mean=HALF, std=HALF, resize="bilinear_antialias", crop=0.875, image_size=(224, 224))
_NO_CONFIG = "no config.json beside the file: pixels, crop and epsilons are those of BiT in its library"


def _timm(file: WeightFile) -> Constants:
    name = str(file.config.get("architecture", ""))
    if name and not name.endswith("_bit"):
        raise preparation.refuse(
            file, f"architecture {name}", "vitax has the ResNet-V2s of BiT alone (names that end in _bit)"
        )
    return preparation.timm(file, _TIMM, NUMERICS_TORCH, _NO_CONFIG)


def _hugging_face(file: WeightFile) -> Constants:
    config = file.config
    for key, known in (("layer_type", "preactivation"), ("hidden_act", "relu")):
        if config.get(key, known) != known:
            raise preparation.refuse(file, f"{key} {config[key]}", f"vitax's BiT has {known}")
    for key in ("global_padding", "embedding_dynamic_padding"):
        if config.get(key):
            raise preparation.refuse(file, f"{key} {config[key]}", "vitax's BiT pads symmetrically")
    if config.get("output_stride", 32) != 32:
        raise preparation.refuse(file, f"output_stride {config['output_stride']}", "vitax's BiT has strides alone")
    model = {**NUMERICS_TORCH, "num_groups": config.get("num_groups", 32)}
    return preparation.hugging_face(file, _TIMM, model, _NO_CONFIG)


GOOGLE = Layout(
    name="bit_google",
    title="Google BiT",
    family="bit",
    required=("resnet/block{s+1}/unit{u+1:02}/a/group_norm/gamma", "resnet/group_norm/gamma"),
    table=google_table(),
    constants=_google,
    rename=without_counters,
)
TIMM = Layout(
    name="timm",
    title="timm BiT",
    family="bit",
    required=("stem.conv.weight", "stages.{s}.blocks.{u}.norm1.weight", "norm.weight"),
    table=torch_table(
        "stem.conv",
        "stages.{s}.blocks.{u}",
        "norm",
        # A convolution of 1x1 there.
        (Rule("head/kernel", "head.fc.weight", squeeze(2, 3).then(MATRIX)), Rule("head/bias", "head.fc.bias")),
    ),
    constants=_timm,
)


def _hugging_face_layout(title: str, prefix: str) -> Layout:
    units = f"{prefix}encoder.stages.{{s}}.layers.{{u}}"
    head = tuple(dense("head", "classifier.1"))
    return Layout(
        name="hf_bit",
        title=title,
        family="bit",
        required=(f"{prefix}embedder.convolution.weight", f"{units}.norm1.weight"),
        table=torch_table(f"{prefix}embedder.convolution", units, f"{prefix}norm", head),
        constants=_hugging_face,
    )


HUGGING_FACE = _hugging_face_layout("Hugging Face BiT", "bit.")
HUGGING_FACE_MODEL = _hugging_face_layout("Hugging Face BiT (without a head)", "")
LAYOUTS = (GOOGLE, TIMM, HUGGING_FACE, HUGGING_FACE_MODEL)
