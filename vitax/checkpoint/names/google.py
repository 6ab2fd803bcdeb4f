"""Google's ViTs: vit_jax before and after Linen, big_vision (loop and scan), SigLIP's image towers.

Reference: names of google-research/vision_transformer and google-research/big_vision.
"""

import math
import re
from collections.abc import Callable

from vitax.checkpoint.convert import SAME, Op, Rule, each
from vitax.checkpoint.files import WeightFile
from vitax.checkpoint.names.layout import Constants, VitLayout

# Files of the first years hold group norms as [1, 1, 1, C].
FLAT = each(lambda x, _: x.reshape(x.shape[-1]) if x.ndim == 4 else x, lambda x, _: x)


def _same(ours: str, theirs: str, leaves: tuple[str, ...], op: Op = SAME) -> list[Rule]:
    return [Rule(f"{ours}/{leaf}", f"{theirs}/{leaf}", op) for leaf in leaves]


def _attention(ours: str, theirs: str) -> list[Rule]:
    parts = ("query", "key", "value", "out")
    return [rule for part in parts for rule in _same(f"{ours}/{part}", f"{theirs}/{part}", ("kernel", "bias"))]


def _mlp(ours: str, theirs: str) -> list[Rule]:
    return [
        *_same(f"{ours}/in", f"{theirs}/Dense_0", ("kernel", "bias")),
        *_same(f"{ours}/out", f"{theirs}/Dense_1", ("kernel", "bias")),
    ]


def vit_table(block: str, indices: tuple[int, int, int, int], positions: str, head: str = "head") -> tuple[Rule, ...]:
    """The rules of a ViT.

    Args:
      block: name of a block there; without a number where the depth is scanned.
      indices: that their classes count with: first norm, attention, second norm, MLP.
      positions: name of the position table.
      head: name of the head.
    """
    norm_1, attention, norm_2, mlp = indices
    ours = "encoder/block_{i:02}"
    return (
        *_same("embedding", "embedding", ("kernel", "bias")),
        Rule("cls", "cls"),
        Rule("pos_embedding", positions),
        *_same(f"{ours}/norm_1", f"{block}/LayerNorm_{norm_1}", ("scale", "bias")),
        *_attention(f"{ours}/attention", f"{block}/MultiHeadDotProductAttention_{attention}"),
        *_same(f"{ours}/norm_2", f"{block}/LayerNorm_{norm_2}", ("scale", "bias")),
        *_mlp(f"{ours}/mlp", f"{block}/MlpBlock_{mlp}"),
        *_same("encoder/norm", "Transformer/encoder_norm", ("scale", "bias")),
        Rule("map_head/probe", "MAPHead_0/probe"),
        *_attention("map_head/attention", "MAPHead_0/MultiHeadDotProductAttention_0"),
        *_same("map_head/norm", "MAPHead_0/LayerNorm_0", ("scale", "bias")),
        *_mlp("map_head/mlp", "MAPHead_0/MlpBlock_0"),
        *_same("pre_logits", "pre_logits", ("kernel", "bias")),
        *_same("head", head, ("kernel", "bias")),
        *_same("stem/root", "conv_root", ("kernel",)),
        *_same("stem/root_norm", "gn_root", ("scale", "bias"), FLAT),
        *_stem_units(),
    )


def _stem_units() -> list[Rule]:
    """Units of the hybrids' ResNet."""
    ours, theirs = "stem/block_{s}/unit_{u:02}", "block{s}/unit{u}"
    rules = []
    for here, conv, norm in (
        ("conv_1", "conv1", ("norm_1", "gn1")),
        ("conv_2", "conv2", ("norm_2", "gn2")),
        ("conv_3", "conv3", ("norm_3", "gn3")),
        ("proj", "conv_proj", ("proj_norm", "gn_proj")),
    ):
        rules += _same(f"{ours}/{here}", f"{theirs}/{conv}", ("kernel",))
        rules += _same(f"{ours}/{norm[0]}", f"{theirs}/{norm[1]}", ("scale", "bias"), FLAT)
    return rules


_AUGREG = re.compile(
    r"(?P<model>[\w+]+)-(?P<data>i1k|i21k_30|i21k)-(?P<epochs>[\d.]+)ep-lr_(?P<lr>[\d.e-]+)-aug_(?P<aug>\w+)"
    r"-wd_(?P<wd>[\d.e-]+)-do_(?P<do>[\d.]+)-sd_(?P<sd>[\d.]+)"
    r"(?:--(?P<adapt>[\w-]+)-steps_(?P<steps>\w+)-lr_(?P<adapt_lr>[\d.e-]+)-res_(?P<res>\d+))?$"
)


def augreg(stem: str) -> dict[str, str] | None:
    """The hyperparameters that an AugReg file name spells, or None.

    Reference: "How to train your ViT?", arXiv:2106.10270; file names of its release.
    """
    match = _AUGREG.match(stem)
    return {k: v for k, v in match.groupdict().items() if v is not None} if match else None


def _augreg_notes(file: WeightFile) -> tuple[str, ...]:
    found = augreg(file.path.stem)
    if found is None:
        return ()
    decoupled = float(found["lr"]) * float(found["wd"])
    note = (
        f"AugReg by its name: {found['model']} on {found['data']}, {found['epochs']} epochs, lr {found['lr']}, "
        f"augmentation {found['aug']}, weight decay {found['wd']} (times lr: {decoupled:.3g} a step), "
        f"dropout {found['do']}, stochastic depth {found['sd']}"
    )
    if "adapt" in found:
        note += f"; adapted to {found['adapt']}, {found['steps']} steps, lr {found['adapt_lr']}, {found['res']} px"
    return (note,)


def _classes_notes(file: WeightFile) -> tuple[str, ...]:
    bias = file.arrays.get("head/bias")
    if bias is None or len(bias) != IMAGENET_21K:
        return ()
    return (f"classes: Google's {IMAGENET_21K} of ImageNet-21k, in its own order; other programs have 21841 or 21842",)


# Every reader of Google's files computes with these.
_NUMERICS = {"gelu": "tanh", "norm_eps": 1e-6}
# Of the hybrids' stems: epsilon of the group norms, and of standardisation.
STEM = {"stem_norm_eps": 1e-6, "stem_std_eps": 1e-5, "stem_std_eps_added_to": "deviation"}


def _vit_jax(file: WeightFile) -> Constants:
    found = augreg(file.path.stem) or {}
    res = int(found["res"]) if "res" in found else None
    notes = (*_augreg_notes(file), *_classes_notes(file))
    model = _NUMERICS | (STEM if "conv_root/kernel" in file.arrays else {})
    return Constants(model=model, notes=notes, image_size=(res, res) if res else None)


def _big_vision(file: WeightFile) -> Constants:
    """SigLIP squashes images; big_vision's classifiers resize the smaller side and crop: 224 of 256, 384 of 448."""
    siglip = "/img/" in f"/{file.root}"
    side = math.isqrt(file.arrays["pos_embedding"].shape[1]) * file.arrays["embedding/kernel"].shape[0]
    crop = None if siglip else 7 / 8 if side < 384 else 6 / 7
    return Constants(model=_NUMERICS, crop=crop, notes=(*_augreg_notes(file), *_classes_notes(file)))


def _layout(
    name: str,
    title: str,
    block: str,
    indices: tuple[int, int, int, int],
    positions: str,
    constants: Callable[[WeightFile], Constants],
    head: str = "head",
) -> VitLayout:
    numbered = (f"{block}/LayerNorm_{indices[2]}/scale", f"{block}/MlpBlock_{indices[3]}/Dense_0/kernel")
    return VitLayout(
        name=name,
        title=title,
        family="vit",
        required=("embedding/kernel", positions, *numbered, *([f"{head}/kernel"] if head != "head" else [])),
        table=vit_table(block, indices, positions, head),
        constants=constants,
        cls_slot=positions != "pos_embedding",
    )


# gs://bit_models/imagenet21k_wordnet_ids.txt has as many lines (big_transfer#7).
IMAGENET_21K = 21_843
_LOOP, _SCAN = "Transformer/encoderblock_{i}", "Transformer/encoderblock"
_JAX_POSITIONS = "Transformer/posembed_input/pos_embedding"

_LINEN = (0, 0, 1, 0)

PRE_LINEN = _layout("vit_jax", "Google ViT (before Linen)", _LOOP, (0, 1, 2, 3), _JAX_POSITIONS, _vit_jax)
SCENIC = _layout("scenic", "Scenic ViT", _LOOP, _LINEN, _JAX_POSITIONS, _vit_jax, "output_projection")
LINEN = _layout("vit_jax_linen", "Google ViT (Linen)", _LOOP, _LINEN, _JAX_POSITIONS, _vit_jax)
BIG_VISION = _layout("big_vision", "big_vision ViT", _LOOP, _LINEN, "pos_embedding", _big_vision)
BIG_VISION_SCAN = _layout("big_vision_scan", "big_vision ViT (scanned)", _SCAN, _LINEN, "pos_embedding", _big_vision)
LAYOUTS = (PRE_LINEN, SCENIC, LINEN, BIG_VISION, BIG_VISION_SCAN)
