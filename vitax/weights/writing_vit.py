"""ViTs and their hybrids in the names of Google's files, timm and Hugging Face."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vitax.checkpoint.names import google, huggingface, timm, tokens
from vitax.core.errors import UserError
from vitax.weights.reading import Published
from vitax.weights.writing_parts import (
    NO_ARCHITECTURE,
    Written,
    classes,
    hf_labels,
    preprocessor,
    refuse,
    renamed,
    timm_config,
    told,
    torch_files,
)

# Stages of a stem -> any architecture of timm with them; model_args say the rest.
_TIMM_HYBRIDS = {
    (): "vit_tiny_r_s16_p8_224",
    (2, 2, 2, 2): "vit_small_r26_s32_224",
    (3, 4, 9): "vit_base_r50_s16_224",
    (3, 4, 6, 3): "vit_large_r50_s32_224",
}


def _hybrid(model: Mapping[str, Any]) -> bool:
    return model["kind"] == "hybrid"


def npz(found: Published) -> Written:
    """Google's: vit_jax's names before Linen for pool ``tok`` (which all read), big_vision's else."""
    model = found.fields
    refuse(model, "Google's ViT", ("num_registers", "layer_scale", "norm_after_pool"))
    theirs = {"gelu": "tanh", "norm_eps": 1e-6, **(google.STEM if _hybrid(model) else {})}
    lines = told(model, theirs, "an npz has no place for it")
    if model["pool"] == "tok":
        return Written(renamed(google.PRE_LINEN, found, found.params), lines=lines)
    arrays = renamed(google.BIG_VISION, found, found.params)
    return Written({f"params/{name}": x for name, x in arrays.items()}, lines=lines)


def to_timm(found: Published) -> Written:
    """timm's ``VisionTransformer``, or a hybrid of it."""
    model = found.fields
    refuse(model, "timm's ViT", ("pre_logits",))
    params = dict(found.params)
    if model["num_registers"]:
        params = tokens.merge_cls_slot(params)  # no_embed_class: registers have no position
    arguments: dict[str, Any] = {
        "img_size": list(found.size),
        "patch_size": model["patch_size"],
        "in_chans": found.recipe["data"].get("channels", 3),
        "embed_dim": model["width"],
        "depth": model["depth"],
        "num_heads": model["num_heads"],
        "mlp_ratio": model["mlp_dim"] / model["width"],
        "num_classes": classes(found),
        "global_pool": {"tok": "token", "gap": "avg", "map": "map"}[model["pool"]],
        "class_token": model["pool"] == "tok",
        "act_layer": "gelu" if model["gelu"] == "erf" else "gelu_tanh",
        "fc_norm": model["norm_after_pool"],
        "no_embed_class": bool(model["num_registers"]),
        "reg_tokens": model["num_registers"],
    }
    if model["layer_scale"] is not None:
        arguments["init_values"] = model["layer_scale"]
    architecture: str | None
    lines = told(model, {"norm_eps": 1e-6}, "config.json cannot say it: create_model(..., norm_layer=...)")
    layout, architecture, first = timm.LAYOUT, "vit_base_patch16_224", "patch_embed.proj"  # any of its class
    if model["norm_after_pool"]:
        layout = timm.LAYOUT_FC_NORM
    if _hybrid(model):
        if model["norm_after_pool"]:
            raise UserError("--to timm: vitax knows no hybrid there whose norm comes after pooling; --to vitax has.")
        layout = timm.HYBRID if model["stem_blocks"] else timm.HYBRID_ROOT
        known = model["stem_width"] == 64 and model["stem_groups"] == 32
        architecture = _TIMM_HYBRIDS.get(tuple(model["stem_blocks"])) if known else None
        first = f"patch_embed.backbone.{'stem.' * bool(model['stem_blocks'])}conv"
        lines += told(model, timm.STEM, "config.json cannot say it")
        if architecture is None:
            stem = f"stems of {list(model['stem_blocks'])} units over {model['stem_width']} channels"
            lines += (f"{NO_ARCHITECTURE} with {stem}",)
    arrays = renamed(layout, found, params)
    more = {"num_features": model["width"], "global_pool": arguments["global_pool"]}
    config = timm_config(found, architecture, first, "head", arguments, **more)
    return torch_files(arrays, {"config.json": config}, lines)


def hugging_face(found: Published) -> Written:
    """Hugging Face's ViT, or its DINOv2 where there is LayerScale."""
    model = found.fields
    if _hybrid(model):
        raise UserError("--to hf: transformers has no such hybrid; --to timm and --to npz have.")
    if model["pool"] != "tok" or not _square(model["patch_size"]):
        raise UserError("--to hf: Hugging Face's ViT pools the cls token and has square patches; --to timm has more.")
    if model["layer_scale"] is None and not model["num_registers"]:
        return _hf_vit(found)
    refuse(model, "Hugging Face's DINOv2", ("pre_logits",))
    if model["layer_scale"] is None:
        raise UserError("--to hf: Hugging Face has registers in DINOv2 alone, with LayerScale; --to timm has both.")
    ratio, rest = divmod(model["mlp_dim"], model["width"])
    if rest:
        raise UserError(
            f"--to hf: DINOv2 has MLPs of a whole multiple of the width, not {model['mlp_dim']} of {model['width']}."
        )
    params = {name: x for name, x in found.params.items() if not name.startswith("head/")}
    arrays = renamed(huggingface.DINOV2_MODEL, found, params)
    arrays["embeddings.mask_token"] = np.zeros((1, model["width"]), np.float32)
    registers = model["num_registers"]
    config = _hf_config(found) | {
        "architectures": ["Dinov2WithRegistersModel" if registers else "Dinov2Model"],
        "model_type": "dinov2_with_registers" if registers else "dinov2",
        "mlp_ratio": ratio,
        "use_swiglu_ffn": False,
        **({"num_register_tokens": registers} if registers else {}),
    }
    left = ("left out: head, since the classifier of DINOv2 there reads two tokens",) if classes(found) else ()
    return torch_files(arrays, {"config.json": config, **preprocessor(found)}, left)


def _hf_vit(found: Published) -> Written:
    model, head = found.fields, bool(classes(found))
    if head and model["pre_logits"]:
        raise UserError("--to hf: Hugging Face's ViT has no pre_logits in front of a head; --to npz has.")
    layout = huggingface.VIT if head else huggingface.VIT_MODEL
    config = _hf_config(found) | {
        "architectures": ["ViTForImageClassification" if head else "ViTModel"],
        "model_type": "vit",
        "intermediate_size": model["mlp_dim"],
        "pooler_act": "tanh",
        "pooler_output_size": model["width"] if model["pre_logits"] in (False, True) else model["pre_logits"],
    }
    arrays = renamed(layout, found, found.params)
    return torch_files(arrays, {"config.json": config, **preprocessor(found)})


def _hf_config(found: Published) -> dict[str, Any]:
    model, size = found.fields, found.size
    return {
        "hidden_size": model["width"],
        "num_hidden_layers": model["depth"],
        "num_attention_heads": model["num_heads"],
        "hidden_act": "gelu" if model["gelu"] == "erf" else "gelu_pytorch_tanh",
        "layer_norm_eps": model["norm_eps"],
        "image_size": size[0] if size[0] == size[1] else list(size),
        "patch_size": model["patch_size"],
        "num_channels": found.recipe["data"].get("channels", 3),
        "qkv_bias": True,
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
        **hf_labels(found),
        "dtype": "float32",
    }


def _square(patch: Any) -> bool:
    return isinstance(patch, int) or patch[0] == patch[1]
