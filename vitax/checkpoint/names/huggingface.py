"""Hugging Face's ViT, DeiT and DINOv2, by the names in their files.

The names of ``state_dict()`` changed in transformers 5; those in files did not.

Reference: files of transformers 5.23.0, models ``vit``, ``deit``, ``dinov2``,
``dinov2_with_registers``.
"""

from collections.abc import Callable

from vitax.checkpoint.convert import Rule
from vitax.checkpoint.files import WeightFile
from vitax.checkpoint.names import preparation
from vitax.checkpoint.names.layout import ACTIVATIONS, HALF, IMAGENET_MEAN, IMAGENET_STD, Constants, VitLayout
from vitax.checkpoint.names.timm import HEADS_OUT, HWIO, dense, heads, norm
from vitax.core.errors import pick

_OURS = "encoder/block_{i:02}"


def _embeddings(prefix: str) -> list[Rule]:
    theirs = f"{prefix}embeddings"
    return [
        *dense("embedding", f"{theirs}.patch_embeddings.projection", HWIO),
        Rule("cls", f"{theirs}.cls_token"),
        Rule("distillation", f"{theirs}.distillation_token"),
        Rule("registers", f"{theirs}.register_tokens"),
        Rule("pos_embedding", f"{theirs}.position_embeddings"),
    ]


def _attention(theirs: str) -> list[Rule]:
    parts = ("query", "key", "value")
    inner = [rule for p in parts for rule in heads(f"{_OURS}/attention/{p}", f"{theirs}.attention.attention.{p}")]
    return [*inner, *dense(f"{_OURS}/attention/out", f"{theirs}.attention.output.dense", HEADS_OUT)]


def vit_table(prefix: str) -> tuple[Rule, ...]:
    """The rules of ViT and DeiT; ``prefix`` is ``vit.``, ``deit.`` or nothing."""
    theirs = f"{prefix}encoder.layer.{{i}}"
    return (
        *_embeddings(prefix),
        *norm(f"{_OURS}/norm_1", f"{theirs}.layernorm_before"),
        *_attention(theirs),
        *norm(f"{_OURS}/norm_2", f"{theirs}.layernorm_after"),
        *dense(f"{_OURS}/mlp/in", f"{theirs}.intermediate.dense"),
        *dense(f"{_OURS}/mlp/out", f"{theirs}.output.dense"),
        *norm("encoder/norm", f"{prefix}layernorm"),
        *dense("pre_logits", f"{prefix}pooler.dense"),
        *dense("head", "classifier"),
    )


def dinov2_table(prefix: str) -> tuple[Rule, ...]:
    """The rules of DINOv2 with and without registers."""
    theirs = f"{prefix}encoder.layer.{{i}}"
    return (
        *_embeddings(prefix),
        *norm(f"{_OURS}/norm_1", f"{theirs}.norm1"),
        *_attention(theirs),
        Rule(f"{_OURS}/layer_scale_1", f"{theirs}.layer_scale1.lambda1"),
        *norm(f"{_OURS}/norm_2", f"{theirs}.norm2"),
        *dense(f"{_OURS}/mlp/in", f"{theirs}.mlp.fc1"),
        *dense(f"{_OURS}/mlp/out", f"{theirs}.mlp.fc2"),
        Rule(f"{_OURS}/layer_scale_2", f"{theirs}.layer_scale2.lambda1"),
        *norm("encoder/norm", f"{prefix}layernorm"),
    )


def _constants(default: Constants, epsilon: float) -> Callable[[WeightFile], Constants]:
    """From ``config.json`` and ``preprocessor_config.json``; what is absent is their classes' default."""

    def constants(file: WeightFile) -> Constants:
        config = file.config
        if config.get("use_swiglu_ffn") or config.get("qkv_bias") is False:
            which = "use_swiglu_ffn" if config.get("use_swiglu_ffn") else "qkv_bias: false"
            raise preparation.refuse(file, which, "vitax's ViT has GELU MLPs and biases alone")
        model = {
            "gelu": pick(ACTIVATIONS, str(config.get("hidden_act", "gelu")), f"{file.path}: hidden_act"),
            "norm_eps": float(config.get("layer_norm_eps", epsilon)),
        }
        if "num_attention_heads" in config:
            model["num_heads"] = config["num_attention_heads"]
        return preparation.hugging_face(file, default, model, _NO_CONFIG.format(epsilon=epsilon))

    return constants


_NO_CONFIG = "no config.json beside the file: LayerNorm epsilon {epsilon:g} and exact GELU, as its class has by default"
_MASK = {r"mask_token$": "stands for masked patches in its own pre-training alone"}
_TWO_TOKENS = {r"^classifier\.": "its classifier reads the cls token and the mean of the patches side by side"}
_VIT = Constants(mean=HALF, std=HALF, resize="bilinear_antialias")
_IMAGENET = Constants(mean=IMAGENET_MEAN, std=IMAGENET_STD, resize="bicubic_antialias", crop=224 / 256)


def _vit(prefix: str, title: str, default: Constants) -> VitLayout:
    return VitLayout(
        name="hf_vit",
        title=title,
        family="vit",
        required=(
            f"{prefix}embeddings.patch_embeddings.projection.weight",
            f"{prefix}encoder.layer.{{i}}.layernorm_before.weight",
        ),
        table=vit_table(prefix),
        constants=_constants(default, 1e-12),
        width=f"{prefix}layernorm.bias",
        positions="bicubic",
        patches="antialiased_bicubic",
        cls_slot=True,
        left_out=_MASK,
    )


def _dinov2(prefix: str, title: str) -> VitLayout:
    return VitLayout(
        name="hf_dinov2",
        title=title,
        family="vit",
        required=(
            f"{prefix}embeddings.patch_embeddings.projection.weight",
            f"{prefix}encoder.layer.{{i}}.layer_scale1.lambda1",
        ),
        table=dinov2_table(prefix),
        constants=_constants(_IMAGENET, 1e-6),
        width=f"{prefix}layernorm.bias",
        positions="bicubic",
        patches="antialiased_bicubic",
        cls_slot=True,
        left_out=_MASK | _TWO_TOKENS,
    )


VIT = _vit("vit.", "Hugging Face ViT", _VIT)
VIT_MODEL = _vit("", "Hugging Face ViT (without a head)", _VIT)
DEIT = _vit("deit.", "Hugging Face DeiT", _IMAGENET)
DINOV2 = _dinov2("dinov2.", "Hugging Face DINOv2")
DINOV2_REGISTERS = _dinov2("dinov2_with_registers.", "Hugging Face DINOv2 with registers")
DINOV2_MODEL = _dinov2("", "Hugging Face DINOv2 (without a head)")
LAYOUTS = (VIT, DEIT, VIT_MODEL, DINOV2, DINOV2_REGISTERS, DINOV2_MODEL)
