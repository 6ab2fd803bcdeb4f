"""timm's VisionTransformer: ViT, DeiT, registers, LayerScale, attention pooling, hybrids.

Reference: parameter names of timm 1.0.31, ``timm.models.vision_transformer``
and ``vision_transformer_hybrid``.
"""

import dataclasses
from collections.abc import Callable

from vitax.checkpoint.convert import Op, Rule, divide_axis, split, transpose
from vitax.checkpoint.files import WeightFile
from vitax.checkpoint.names import preparation
from vitax.checkpoint.names.layout import ACTIVATIONS, Constants, VitLayout
from vitax.core.errors import pick

HWIO = transpose(2, 3, 1, 0)
MATRIX = transpose(1, 0)
# [N * K, D] -> [D, N, K] and [D, N * K] -> [N, K, D]
HEADS_IN = MATRIX.then(divide_axis(1, "num_heads"))
HEADS_OUT = MATRIX.then(divide_axis(0, "num_heads"))
HEADS_BIAS = divide_axis(0, "num_heads")


def norm(ours: str, theirs: str) -> list[Rule]:
    return [Rule(f"{ours}/scale", f"{theirs}.weight"), Rule(f"{ours}/bias", f"{theirs}.bias")]


def dense(ours: str, theirs: str, kernel: Op = MATRIX, bias: Op | None = None) -> list[Rule]:
    return [
        Rule(f"{ours}/kernel", f"{theirs}.weight", kernel),
        Rule(f"{ours}/bias", f"{theirs}.bias") if bias is None else Rule(f"{ours}/bias", f"{theirs}.bias", bias),
    ]


def heads(ours: str, theirs: str) -> list[Rule]:
    """A projection to heads of its own."""
    return dense(ours, theirs, HEADS_IN, HEADS_BIAS)


def _joined(ours: str, parts: tuple[str, ...], theirs: str) -> list[Rule]:
    """Several projections to heads in one matrix there."""
    return [
        Rule(tuple(f"{ours}/{p}/kernel" for p in parts), f"{theirs}.weight", split(len(parts)).then(HEADS_IN)),
        Rule(tuple(f"{ours}/{p}/bias" for p in parts), f"{theirs}.bias", split(len(parts)).then(HEADS_BIAS)),
    ]


def _mlp(ours: str, theirs: str) -> list[Rule]:
    return [*dense(f"{ours}/in", f"{theirs}.fc1"), *dense(f"{ours}/out", f"{theirs}.fc2")]


def vit_table(final_norm: str) -> tuple[Rule, ...]:
    """The rules; ``final_norm`` is ``fc_norm`` where it comes after pooling, else ``norm``."""
    ours, theirs = "encoder/block_{i:02}", "blocks.{i}"
    pool = "attn_pool"
    return (
        Rule("embedding/kernel", "patch_embed.proj.weight", HWIO),
        Rule("embedding/bias", "patch_embed.proj.bias"),
        Rule("cls", "cls_token"),
        Rule("distillation", "dist_token"),
        Rule("registers", "reg_token"),
        Rule("pos_embedding", "pos_embed"),
        *norm(f"{ours}/norm_1", f"{theirs}.norm1"),
        *_joined(f"{ours}/attention", ("query", "key", "value"), f"{theirs}.attn.qkv"),
        *dense(f"{ours}/attention/out", f"{theirs}.attn.proj", HEADS_OUT),
        Rule(f"{ours}/layer_scale_1", f"{theirs}.ls1.gamma"),
        *norm(f"{ours}/norm_2", f"{theirs}.norm2"),
        *_mlp(f"{ours}/mlp", f"{theirs}.mlp"),
        Rule(f"{ours}/layer_scale_2", f"{theirs}.ls2.gamma"),
        *norm("encoder/norm", final_norm),
        Rule("map_head/probe", f"{pool}.latent"),
        *heads("map_head/attention/query", f"{pool}.q"),
        *_joined("map_head/attention", ("key", "value"), f"{pool}.kv"),
        *dense("map_head/attention/out", f"{pool}.proj", HEADS_OUT),
        *norm("map_head/norm", f"{pool}.norm"),
        *_mlp("map_head/mlp", f"{pool}.mlp"),
        *dense("head", "head"),
    )


_POOLS = {"token": "tok", "avg": "gap", "map": "map"}
_VIT = Constants(resize="bicubic_antialias", crop=0.9)
_NO_CONFIG = (
    "no config.json with pretrained_cfg beside the file: pixels, crop, activation and epsilon are those of timm's "
    "AugReg ViTs (DeiT and DINOv2 scale pixels otherwise)"
)


def _constants(file: WeightFile) -> Constants:
    """From ``config.json`` (``pretrained_cfg``, ``model_args``) where it lies beside the file."""
    config, arguments = file.config, file.config.get("model_args") or {}
    architecture = str(config.get("architecture", ""))
    activation = arguments.get("act_layer", "gelu_tanh" if "so400m_patch16" in architecture else "gelu")
    pool = arguments.get("global_pool") or config.get("global_pool")
    model = {
        "gelu": pick(ACTIVATIONS, str(activation), f"{file.path}: activation"),
        "norm_eps": 1e-5 if "clip" in architecture else 1e-6,
        "num_heads": arguments.get("num_heads"),
        "pool": _POOLS.get(str(pool)),
    }
    return preparation.timm(file, _VIT, {k: v for k, v in model.items() if v is not None}, _NO_CONFIG)


def _hybrid_constants(file: WeightFile) -> Constants:
    plain = _constants(file)
    return dataclasses.replace(plain, model={**plain.model, **STEM})


# What timm's stems compute with, where the originals add 1e-5 to the deviation.
STEM = {"stem_norm_eps": 1e-5, "stem_std_eps": 1e-8, "stem_std_eps_added_to": "variance"}
_BACKBONE = "patch_embed.backbone"


def hybrid_table(root: str) -> tuple[Rule, ...]:
    """The rules of a hybrid; ``root`` is ``stem.`` where stages follow the root, else nothing."""
    ours, theirs = "stem/block_{s+1}/unit_{u+1:02}", f"{_BACKBONE}.stages.{{s}}.blocks.{{u}}"
    rules = [Rule("stem/root/kernel", f"{_BACKBONE}.{root}conv.weight", HWIO)]
    rules += norm("stem/root_norm", f"{_BACKBONE}.{root}norm")
    for k in (1, 2, 3):
        rules += [Rule(f"{ours}/conv_{k}/kernel", f"{theirs}.conv{k}.weight", HWIO)]
        rules += norm(f"{ours}/norm_{k}", f"{theirs}.norm{k}")
    rules += [Rule(f"{ours}/proj/kernel", f"{theirs}.downsample.conv.weight", HWIO)]
    rules += norm(f"{ours}/proj_norm", f"{theirs}.downsample.norm")
    return (*vit_table("norm"), *rules)


def _layout(
    title: str,
    table: tuple[Rule, ...],
    required: tuple[str, ...],
    constants: Callable[[WeightFile], Constants] = _constants,
    absent: str = "fc_norm.weight",
) -> VitLayout:
    return VitLayout(
        name="timm",
        title=title,
        family="vit",
        required=("patch_embed.proj.weight", "pos_embed", "blocks.{i}.attn.qkv.weight", *required),
        table=table,
        constants=constants,
        width="patch_embed.proj.bias",
        positions="antialiased_bicubic",
        patches="antialiased_bicubic",
        cls_slot=None,
        norm_after_pool=absent == "norm.weight",
        # Both norms at once would be two in a row, which no rule has.
        absent=absent,
    )


def _hybrid(title: str, root: str) -> VitLayout:
    return _layout(title, hybrid_table(root), (f"{_BACKBONE}.{root}conv.weight", "norm.weight"), _hybrid_constants)


LAYOUT = _layout("timm ViT", vit_table("norm"), ("norm.weight",))
LAYOUT_FC_NORM = _layout(
    "timm ViT (norm after pooling)", vit_table("fc_norm"), ("fc_norm.weight",), absent="norm.weight"
)
HYBRID = _hybrid("timm hybrid", "stem.")
HYBRID_ROOT = _hybrid("timm hybrid (root alone)", "")
LAYOUTS = (HYBRID, HYBRID_ROOT, LAYOUT, LAYOUT_FC_NORM)
