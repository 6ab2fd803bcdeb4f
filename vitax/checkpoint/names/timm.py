"""timm's VisionTransformer: ViT, DeiT, registers, LayerScale, attention pooling.

Reference: parameter names of timm 1.0.31, ``timm.models.vision_transformer``.
"""

from typing import Any

from vitax.checkpoint.convert import Op, Rule, divide_axis, split, transpose
from vitax.checkpoint.files import WeightFile
from vitax.checkpoint.names.layout import ACTIVATIONS, Constants, Layout
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
_RESIZES = {"bicubic": "bicubic_antialias", "bilinear": "bilinear_antialias"}


_NO_CONFIG = (
    "no config.json with pretrained_cfg beside the file: pixels, crop, activation and epsilon are those of timm's "
    "AugReg ViTs (DeiT and DINOv2 scale pixels otherwise)"
)


def _constants(file: WeightFile) -> Constants:
    """From ``config.json`` (``pretrained_cfg``, ``model_args``) where it lies beside the file."""
    config = file.config
    about: dict[str, Any] = config.get("pretrained_cfg") or {}
    arguments: dict[str, Any] = config.get("model_args") or {}
    if not about:
        return Constants(
            gelu="erf",
            resize="bicubic_antialias",
            crop=0.9,
            notes=(_NO_CONFIG,),
        )
    architecture = str(config.get("architecture", ""))
    activation = arguments.get("act_layer", "gelu_tanh" if "so400m_patch16" in architecture else "gelu")
    size = arguments.get("img_size") or about.get("input_size", [3, None, None])[1:]
    size = (size, size) if isinstance(size, int) else tuple(size)
    names = config.get("label_names")  # a mapping where numbers are left out
    pool = arguments.get("global_pool") or config.get("global_pool")
    return Constants(
        norm_eps=1e-5 if "clip" in architecture else 1e-6,
        gelu=pick(ACTIVATIONS, str(activation), f"{file.path}: activation"),
        mean=tuple(about.get("mean", (0.5,) * 3)),
        std=tuple(about.get("std", (0.5,) * 3)),
        resize=pick(_RESIZES, about.get("interpolation", "bicubic"), f"{file.path}: interpolation"),
        crop=None if about.get("crop_mode") == "squash" else float(about.get("crop_pct", 0.9)),
        image_size=size if all(size) else None,
        num_heads=arguments.get("num_heads"),
        pool=_POOLS.get(str(pool)) if pool else None,
        class_names=tuple(names) if isinstance(names, list) else None,
        notes=("constants from config.json beside the file",),
    )


def _layout(final_norm: str, title: str) -> Layout:
    return Layout(
        name="timm",
        title=title,
        required=("patch_embed.proj.weight", "pos_embed", "blocks.{i}.attn.qkv.weight", f"{final_norm}.weight"),
        table=vit_table(final_norm),
        constants=_constants,
        width="patch_embed.proj.bias",
        positions="antialiased_bicubic",
        patches="antialiased_bicubic",
        cls_slot=None,
        # Both norms at once would be two in a row, which no rule has.
        absent="norm.weight" if final_norm == "fc_norm" else "fc_norm.weight",
    )


LAYOUT = _layout("norm", "timm ViT")
LAYOUT_FC_NORM = _layout("fc_norm", "timm ViT (norm after pooling)")
LAYOUTS = (LAYOUT, LAYOUT_FC_NORM)
