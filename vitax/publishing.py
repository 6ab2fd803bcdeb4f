"""``vitax convert``: a checkpoint or a published file in the names of another program, and what goes beside it."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import vitax
from vitax import published
from vitax.checkpoint import convert, digest, offline, store, warm_start, weight_writer
from vitax.checkpoint.files import is_weight_file
from vitax.checkpoint.names import google, huggingface, timm, tokens
from vitax.checkpoint.names.layout import HALF, Layout
from vitax.core.errors import UserError, pick
from vitax.published import Published

HF_FILE = "model.safetensors"


@dataclasses.dataclass(frozen=True)
class Written:
    """What is to be written.

    Attributes:
      arrays: by their names there.
      beside: name of a JSON file beside the weights -> its content.
      metadata: text in the weight file.
      lines: what the other program must be told, or cannot hold.
    """

    arrays: Mapping[str, np.ndarray]
    beside: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    lines: tuple[str, ...] = ()


def run(source: str, target: Path, to: str, image_size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Converts one checkpoint.

    Args:
      source: a workdir (``DIR`` or ``DIR@STEP``; averaged parameters where there are any) or a weight file.
      target: ``*.npz`` or ``*.safetensors`` for ``vitax``, ``*.npz`` for ``npz``; a folder for ``timm``
        and ``hf``, which gets ``model.safetensors`` and ``config.json``.
      to: a name of ``TARGETS``.
      image_size: as for ``published.load``.

    Returns:
      ``source, layout, to, files, arrays, parameters, lines``.

    Raises:
      UserError: an unknown target, or a model that the target cannot hold.
    """
    make = pick(TARGETS, to, "--to")
    if to in ("timm", "hf"):
        if target.suffix in (".npz", ".safetensors"):
            raise UserError(f"{target}: --to {to} writes a folder with {HF_FILE} and config.json; name a folder.")
        out = target / HF_FILE
    elif to == "npz" and target.suffix != ".npz":
        raise UserError(f"{target}: --to npz writes one file; expected a name that ends in .npz.")
    else:
        out = target
    weight_writer.check(out)
    found = read(source, image_size)
    written = make(found)
    shapes = weight_writer.write(out, written.arrays.items(), written.metadata)
    paths = [out]
    for name, content in written.beside.items():
        paths.append(out.parent / name)
        paths[-1].write_text(json.dumps(content, indent=1) + "\n")
    published.load(str(out), found.image_size).whole()  # what was written can be read
    return {
        "source": source,
        "layout": found.title,
        "to": to,
        "files": [str(p) for p in paths],
        "arrays": len(shapes),
        "parameters": sum(math.prod(shape) for shape in shapes),
        "lines": [*found.lines, *written.lines],
    }


def lines(row: Mapping[str, Any]) -> list[str]:
    """For a person."""
    return [*row["lines"], f"{', '.join(row['files'])}: {row['arrays']} arrays, {row['parameters']:,} parameters"]


def read(source: str, image_size: tuple[int, int] | None = None) -> Published:
    """A weight file, or the parameters of a workdir, as a whole model."""
    if is_weight_file(source):
        return published.load(source, image_size).whole()
    directory, step = warm_start.find(source, "convert")
    try:
        metadata, digests = store.read_metadata(directory, step)
        root = "ema/" if any(name.startswith("ema/") for name in digests) else "params/"
        names = [name for name in digests if name.startswith(root)]
        arrays = {name.removeprefix(root): x for name, x in offline.arrays(directory, step, names)}
    except store.Damaged as problem:
        raise UserError(
            f"Checkpoint {directory / str(step)} is damaged: {problem}. Name another: DIR@STEP."
        ) from problem
    line = f"{source}: step {step}, {'averaged ' if root == 'ema/' else ''}parameters"
    return published.of_recipe(source, arrays, metadata["recipe"], metadata.get("class_names"), line).whole()


def _vitax(found: Published) -> Written:
    recipe = json.dumps(found.recipe)
    held = {name: np.asarray(x) for name, x in found.params.items()}
    about = {
        "format": "vitax",
        "step": "0",
        "weights": found.title,
        "name": "",
        "recipe": recipe,
        "class_names": json.dumps(found.class_names),
        "versions": json.dumps({"vitax": vitax.__version__}),
        "digest": digest.combine(digest.manifest(held)),
    }
    return Written(held, metadata=about)


def _npz(found: Published) -> Written:
    """Google's: vit_jax's names before Linen for pool ``tok`` (which all read), big_vision's else."""
    model = found.recipe["model"]
    _refuse(model, "Google's ViT", ("num_registers", "layer_scale", "norm_after_pool"))
    told = _told(model, {"gelu": "tanh", "norm_eps": 1e-6}, "an npz has no place for it")
    if found.class_names:
        told += ("class names: left out, since an npz has no place for them; --to vitax and --to timm keep them",)
    if model.get("pool", "tok") == "tok":
        return Written(_renamed(google.PRE_LINEN, found, found.params), lines=told)
    arrays = _renamed(google.BIG_VISION, found, found.params)
    return Written({f"params/{name}": x for name, x in arrays.items()}, lines=told)


def _timm(found: Published) -> Written:
    model = found.recipe["model"]
    _refuse(model, "timm's ViT", ("pre_logits",))
    pool = model.get("pool", "tok")
    after = bool(model.get("norm_after_pool"))
    params = dict(found.params)
    registers = model.get("num_registers", 0)
    if registers:
        params = tokens.merge_cls_slot(params)  # no_embed_class: registers have no position
    layout = timm.LAYOUT_FC_NORM if after else timm.LAYOUT
    arguments: dict[str, Any] = {
        "img_size": list(found.image_size),
        "patch_size": model["patch_size"],
        "in_chans": found.recipe["data"].get("channels", 3),
        "embed_dim": model["width"],
        "depth": model["depth"],
        "num_heads": model["num_heads"],
        "mlp_ratio": model["mlp_dim"] / model["width"],
        "num_classes": _classes(found),
        "global_pool": {"tok": "token", "gap": "avg", "map": "map"}[pool],
        "class_token": pool == "tok",
        "act_layer": "gelu" if model.get("gelu") == "erf" else "gelu_tanh",
        "fc_norm": after,
        "no_embed_class": bool(registers),
        "reg_tokens": registers,
    }
    if model.get("layer_scale") is not None:
        arguments["init_values"] = model["layer_scale"]
    images = _images(found)
    config = {
        "architecture": "vit_base_patch16_224",  # any of its class; model_args say the rest
        "num_classes": arguments["num_classes"],
        "num_features": model["width"],
        "global_pool": arguments["global_pool"],
        "model_args": arguments,
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [arguments["in_chans"], *found.image_size],
            "fixed_input_size": True,
            "interpolation": images["filter"],
            "crop_pct": images["crop"] or 1.0,
            "crop_mode": "center" if images["crop"] else "squash",
            "mean": images["mean"],
            "std": images["std"],
            "num_classes": arguments["num_classes"],
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    if found.class_names:
        config["label_names"] = list(found.class_names)
    told = _told(model, {"norm_eps": 1e-6}, "config.json cannot say it: create_model(..., norm_layer=...)")
    return Written(_renamed(layout, found, params), {"config.json": config}, {"format": "pt"}, told)


def _hugging_face(found: Published) -> Written:
    model = found.recipe["model"]
    if model.get("pool", "tok") != "tok" or not _square(model["patch_size"]):
        raise UserError("--to hf: Hugging Face's ViT pools the cls token and has square patches; --to timm has more.")
    if model.get("layer_scale") is None and not model.get("num_registers"):
        return _hf_vit(found)
    _refuse(model, "Hugging Face's DINOv2", ("pre_logits",))
    if model.get("layer_scale") is None:
        raise UserError("--to hf: Hugging Face has registers in DINOv2 alone, with LayerScale; --to timm has both.")
    ratio, rest = divmod(model["mlp_dim"], model["width"])
    if rest:
        raise UserError(
            f"--to hf: DINOv2 has MLPs of a whole multiple of the width, not {model['mlp_dim']} of {model['width']}."
        )
    params = {name: x for name, x in found.params.items() if not name.startswith("head/")}
    arrays = _renamed(huggingface.DINOV2_MODEL, found, params)
    arrays["embeddings.mask_token"] = np.zeros((1, model["width"]), np.float32)
    registers = model.get("num_registers", 0)
    config = _hf_config(found) | {
        "architectures": ["Dinov2WithRegistersModel" if registers else "Dinov2Model"],
        "model_type": "dinov2_with_registers" if registers else "dinov2",
        "mlp_ratio": ratio,
        "use_swiglu_ffn": False,
        **({"num_register_tokens": registers} if registers else {}),
    }
    left = ("left out: head, since the classifier of DINOv2 there reads two tokens",) if _classes(found) else ()
    return Written(arrays, {"config.json": config, **_preprocessor(found)}, {"format": "pt"}, left)


def _hf_vit(found: Published) -> Written:
    model, classes = found.recipe["model"], _classes(found)
    if classes and model.get("pre_logits"):
        raise UserError("--to hf: Hugging Face's ViT has no pre_logits in front of a head; --to npz has.")
    layout = huggingface.VIT if classes else huggingface.VIT_MODEL
    config = _hf_config(found) | {
        "architectures": ["ViTForImageClassification" if classes else "ViTModel"],
        "model_type": "vit",
        "intermediate_size": model["mlp_dim"],
        "pooler_act": "tanh",
        "pooler_output_size": model["width"] if model.get("pre_logits") in (None, False, True) else model["pre_logits"],
    }
    arrays = _renamed(layout, found, found.params)
    return Written(arrays, {"config.json": config, **_preprocessor(found)}, {"format": "pt"})


def _hf_config(found: Published) -> dict[str, Any]:
    model, size = found.recipe["model"], found.image_size
    names = found.class_names or [f"LABEL_{i}" for i in range(_classes(found))]
    return {
        "hidden_size": model["width"],
        "num_hidden_layers": model["depth"],
        "num_attention_heads": model["num_heads"],
        "hidden_act": "gelu" if model.get("gelu") == "erf" else "gelu_pytorch_tanh",
        "layer_norm_eps": model.get("norm_eps", 1e-6),
        "image_size": size[0] if size[0] == size[1] else list(size),
        "patch_size": model["patch_size"],
        "num_channels": found.recipe["data"].get("channels", 3),
        "qkv_bias": True,
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "dtype": "float32",
    }


def _preprocessor(found: Published) -> dict[str, Any]:
    images, (height, width) = _images(found), found.image_size
    scaled = {
        "do_resize": True,
        "resample": {"bilinear": 2, "bicubic": 3}[images["filter"]],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": images["mean"],
        "image_std": images["std"],
    }
    if images["crop"] is None:
        kind: dict[str, Any] = {"image_processor_type": "ViTImageProcessor", "size": {"height": height, "width": width}}
    else:
        edge = int(min(height, width) / images["crop"] + 1e-6)
        crop = {"do_center_crop": True, "crop_size": {"height": height, "width": width}}
        kind = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": edge}} | crop
    return {"preprocessor_config.json": kind | scaled}


def _images(found: Published) -> dict[str, Any]:
    """``mean``, ``std`` (one a channel), ``filter`` and ``crop`` (None squashes) of the recipe's images."""
    objective, data = found.recipe["objective"], found.recipe["data"]
    channels = data.get("channels", 3)
    ops = {op["kind"]: op for op in data.get("ops") or ()}
    resize = ops.get("resize_small") or ops.get("resize") or {}
    scale = {name: list(objective.get(name) or HALF[:1]) for name in ("mean", "std")}
    return {
        **{name: values * channels if len(values) == 1 else values for name, values in scale.items()},
        "filter": "bicubic" if resize.get("method", "").startswith("bicubic") else "bilinear",
        "crop": min(found.image_size) / ops["resize_small"]["smaller"] if "resize_small" in ops else None,
    }


def _renamed(layout: Layout, found: Published, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    sizes = {"num_heads": found.recipe["model"]["num_heads"]}
    done = convert.to_theirs(layout.table, params, sizes)
    rest = done.unexpected + done.incomplete
    if rest:
        raise UserError(f"{found.spec}: {layout.title} has no place for {', '.join(rest[:8])}.")
    return {name: np.asarray(x, np.float32) for name, x in done.arrays.items()}


def _refuse(model: Mapping[str, Any], target: str, fields: tuple[str, ...]) -> None:
    for name in fields:
        if model.get(name):
            raise UserError(f"{target} has no {name} (model.{name} = {model[name]}); --to vitax keeps everything.")


def _told(model: Mapping[str, Any], theirs: Mapping[str, Any], why: str) -> tuple[str, ...]:
    """Lines for settings that the other program has otherwise."""
    defaults = {"gelu": "tanh", "norm_eps": 1e-6}
    have = {name: model.get(name, defaults[name]) for name in theirs}
    return tuple(
        f"{name}: the model has {have[name]}, its reader takes {value}; {why}"
        for name, value in theirs.items()
        if have[name] != value
    )


def _classes(found: Published) -> int:
    return int(found.params["head/bias"].shape[0]) if "head/bias" in found.params else 0


def _square(patch: Any) -> bool:
    return isinstance(patch, int) or patch[0] == patch[1]


TARGETS: dict[str, Callable[[Published], Written]] = {
    "vitax": _vitax,
    "npz": _npz,
    "timm": _timm,
    "hf": _hugging_face,
}
