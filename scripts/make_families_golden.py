"""Writes tests/golden/families/: what timm and transformers give for small BiTs, EfficientNets and hybrids.

    python scripts/make_families_golden.py [--out tests/golden/families]

Needs scripts/requirements-parity.txt. One folder a model: ``names.json`` (name, type and
shape of every array that the library writes, or Google's code wrote), the configuration
beside it, and ``outputs.npz`` with ``logits``, ``features`` and ``size`` (height, width) of
the two images. Weights and images are drawn by ``seeded_weights``; torch computes in float64. Google's names are
spelt out here, and their files read by timm's own loader.
"""

import argparse
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_torchvision
import numpy as np
import seeded_weights

fake_torchvision.install()

import timm  # noqa: E402
import torch  # noqa: E402
from timm.layers import GroupNormAct, HybridEmbed, StdConv2d, StdConv2dSame  # noqa: E402
from timm.models._hub import save_for_hf  # noqa: E402
from timm.models.efficientnet import _gen_efficientnet, _gen_efficientnet_lite  # noqa: E402
from timm.models.resnetv2 import ResNetV2  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402
from transformers import (  # noqa: E402
    BitConfig,
    BitForImageClassification,
    BitImageProcessor,
    EfficientNetConfig,
    EfficientNetForImageClassification,
)

CLASSES, ROOT = 5, 32
Outputs = dict[str, np.ndarray]
Model = Any
KINDS = {i: f"kind {i}" for i in range(CLASSES)}
NAMED = {"id2label": KINDS, "label2id": {name: i for i, name in KINDS.items()}}
# EfficientNet: a tenth of B0's channels and a third of its blocks, so that one stage has two.
SMALL = {"channel_multiplier": 0.1, "depth_multiplier": 0.3, "num_classes": CLASSES}
ENCODER = {"embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 1.5, "num_classes": CLASSES}


def bit_timm() -> Model:
    model = ResNetV2(
        layers=[2, 1],
        channels=(4 * ROOT, 8 * ROOT),
        num_classes=CLASSES,
        stem_chs=ROOT,
        stem_type="fixed",
        conv_layer=functools.partial(StdConv2d, eps=1e-8),
    )
    # timm makes its BiTs so.
    real = timm.create_model("resnetv2_50x1_bit", num_classes=1)
    assert {m.eps for m in real.modules() if isinstance(m, StdConv2d)} == {1e-8}
    assert {(m.eps, m.num_groups) for m in real.modules() if isinstance(m, GroupNormAct)} == {(1e-5, 32)}
    return model


def hybrid_timm() -> Model:
    stem = ResNetV2(
        layers=[2, 1],
        channels=(4 * ROOT, 8 * ROOT),
        num_classes=0,
        global_pool="",
        stem_chs=ROOT,
        stem_type="same",
        preact=False,
        conv_layer=functools.partial(StdConv2dSame, eps=1e-8),
    )
    embed = functools.partial(HybridEmbed, backbone=stem)
    return VisionTransformer(img_size=(32, 48), patch_size=1, embed_layer=embed, **ENCODER)


def hybrid_timm_root() -> Model:
    model = timm.create_model("vit_tiny_r_s16_p8_224", img_size=(64, 32), **ENCODER)
    assert {m.eps for m in model.modules() if isinstance(m, StdConv2dSame)} == {1e-8}
    assert {m.eps for m in model.modules() if isinstance(m, GroupNormAct)} == {1e-5}
    assert {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6}
    return model


def _efficientnet(name: str, generate: Any, **fields: Any) -> Model:
    real = timm.create_model(name, num_classes=1)
    norm = real.bn1
    model = generate(name, bn_eps=norm.eps, bn_momentum=norm.momentum, **SMALL, **fields)
    first = [next(type(m) for m in x.modules() if isinstance(m, torch.nn.SiLU | torch.nn.ReLU6)) for x in (real, model)]
    assert first[0] is first[1]
    return model


def efficientnet_timm_tf() -> Model:
    return _efficientnet("tf_efficientnet_b0", _gen_efficientnet, pad_type="same")


def efficientnet_timm_ported() -> Model:
    return _efficientnet("efficientnet_b0", _gen_efficientnet)


def efficientnet_timm_lite() -> Model:
    return _efficientnet("tf_efficientnet_lite0", _gen_efficientnet_lite, pad_type="same")


# name -> (constructor, size of the images, timm's architecture)
TIMM: dict[str, tuple[Callable[[], Model], tuple[int, int], str]] = {
    "bit_timm": (bit_timm, (37, 24), "resnetv2_50x1_bit"),
    "hybrid_timm": (hybrid_timm, (32, 48), "vit_small_r26_s32_224"),
    "hybrid_timm_root": (hybrid_timm_root, (64, 32), "vit_tiny_r_s16_p8_224"),
    "efficientnet_timm_tf": (efficientnet_timm_tf, (33, 48), "tf_efficientnet_b0"),
    "efficientnet_timm_ported": (efficientnet_timm_ported, (33, 48), "efficientnet_b0"),
    "efficientnet_timm_lite": (efficientnet_timm_lite, (33, 48), "tf_efficientnet_lite0"),
}


def bit_hf() -> Model:
    sizes = {"embedding_size": 8, "hidden_sizes": [32, 64], "depths": [2, 1], "num_groups": 4}
    return BitForImageClassification(BitConfig(**sizes, **NAMED))


def efficientnet_hf() -> Model:
    # Wide enough for the first stage to lose channels: see check_residuals in vitax.
    scale = {"width_coefficient": 0.4, "depth_coefficient": 0.3, "hidden_dim": 512, "image_size": 64}
    return EfficientNetForImageClassification(EfficientNetConfig(**scale, **NAMED))


HUGGING_FACE: dict[str, tuple[Callable[[], Model], tuple[int, int]]] = {
    "bit_hf": (bit_hf, (37, 24)),
    "efficientnet_hf": (efficientnet_hf, (64, 32)),
}


def bit_google_names() -> seeded_weights.Names:
    """Google's names, two of the layers counted as TensorFlow counts them."""
    names: dict[str, tuple[str, tuple[int, ...]]] = {}

    def norm(name: str, channels: int) -> None:
        for leaf in ("gamma", "beta"):
            names[f"{name}/group_norm/{leaf}"] = ("F32", (channels,))

    names["resnet/root_block/standardized_conv2d/kernel"] = ("F32", (7, 7, 3, ROOT))
    channels = ROOT
    for block, units in ((1, 2), (2, 1)):
        inner, outer = ROOT * block, 4 * ROOT * block
        for unit in range(1, units + 1):
            here = f"resnet/block{block}/unit{unit:02d}"
            sides = (("a", 1, channels, inner), ("b", 3, inner, inner), ("c", 1, inner, outer))
            for letter, side, entering, leaving in sides:
                norm(f"{here}/{letter}", entering)
                names[f"{here}/{letter}/standardized_conv2d/kernel"] = ("F32", (side, side, entering, leaving))
            if unit == 1:
                names[f"{here}/a/proj/standardized_conv2d/kernel"] = ("F32", (1, 1, channels, outer))
            channels = outer
    norm("resnet", channels)
    names["resnet/head/conv2d/kernel"] = ("F32", (1, 1, channels, CLASSES))
    names["resnet/head/conv2d/bias"] = ("F32", (CLASSES,))
    return dict(sorted(names.items()))


def hybrid_google_names() -> seeded_weights.Names:
    """vit_jax's names before Linen, norms of the stem with axes of 1 in front as its old files have them."""
    names: dict[str, tuple[str, tuple[int, ...]]] = {"conv_root/kernel": ("F32", (7, 7, 3, ROOT))}
    width, heads = ENCODER["embed_dim"], ENCODER["num_heads"]
    hidden = int(width * ENCODER["mlp_ratio"])

    def pair(name: str, leaves: tuple[str, str], *shapes: tuple[int, ...]) -> None:
        for leaf, shape in zip(leaves, shapes):
            names[f"{name}/{leaf}"] = ("F32", shape)

    def stem_norm(name: str, channels: int) -> None:
        pair(name, ("scale", "bias"), *[(1, 1, 1, channels)] * 2)

    def dense(name: str, *shapes: tuple[int, ...]) -> None:
        pair(name, ("kernel", "bias"), *shapes)

    stem_norm("gn_root", ROOT)
    channels = ROOT
    for block, units in ((1, 2), (2, 1)):
        inner, outer = ROOT * block, 4 * ROOT * block
        for unit in range(1, units + 1):
            here = f"block{block}/unit{unit}"
            for k, (side, entering, leaving) in enumerate(((1, channels, inner), (3, inner, inner), (1, inner, outer))):
                names[f"{here}/conv{k + 1}/kernel"] = ("F32", (side, side, entering, leaving))
                stem_norm(f"{here}/gn{k + 1}", leaving)
            if unit == 1:
                names[f"{here}/conv_proj/kernel"] = ("F32", (1, 1, channels, outer))
                stem_norm(f"{here}/gn_proj", outer)
            channels = outer
    dense("embedding", (1, 1, channels, width), (width,))
    names["cls"] = ("F32", (1, 1, width))
    names["Transformer/posembed_input/pos_embedding"] = ("F32", (1, 17, width))
    for i in range(ENCODER["depth"]):
        block = f"Transformer/encoderblock_{i}"
        for k in (0, 2):
            pair(f"{block}/LayerNorm_{k}", ("scale", "bias"), (width,), (width,))
        for part in ("query", "key", "value"):
            attention = f"{block}/MultiHeadDotProductAttention_1"
            dense(f"{attention}/{part}", (width, heads, width // heads), (heads, width // heads))
        dense(f"{attention}/out", (heads, width // heads, width), (width,))
        dense(f"{block}/MlpBlock_3/Dense_0", (width, hidden), (hidden,))
        dense(f"{block}/MlpBlock_3/Dense_1", (hidden, width), (width,))
    pair("Transformer/encoder_norm", ("scale", "bias"), (width,), (width,))
    dense("head", (width, CLASSES), (CLASSES,))
    return dict(sorted(names.items()))


def _hybrid_of_google() -> Model:
    """``hybrid_timm`` for square images, as timm's reader of npz wants it."""
    model = hybrid_timm()
    embed = functools.partial(HybridEmbed, backbone=model.patch_embed.backbone)
    return VisionTransformer(img_size=32, patch_size=1, embed_layer=embed, **ENCODER)


# name -> (names, timm model that its loader fills, file)
GOOGLE: dict[str, tuple[Callable[[], seeded_weights.Names], Callable[[], Model], tuple[int, int], str]] = {
    "bit_google": (bit_google_names, bit_timm, (37, 24), "BiT-M-R50x1.npz"),
    "hybrid_google": (hybrid_google_names, _hybrid_of_google, (32, 32), "R26_S_32.npz"),
}


def images(name: str, size: tuple[int, int]) -> np.ndarray:
    return seeded_weights.uniform(f"image of {name}", (2, *size, 3)).astype(np.float32)


def outputs(model: Model, image: np.ndarray) -> Outputs:
    """Logits and features in float64."""
    model = model.double().eval()
    pixels = torch.from_numpy(image.transpose(0, 3, 1, 2)).double()
    with torch.no_grad():
        if hasattr(model, "forward_head"):
            maps = model.forward_features(pixels)
            features, logits = model.forward_head(maps, pre_logits=True), model.forward_head(maps)
        else:
            base = getattr(model, model.base_model_prefix)
            features, logits = base(pixels).pooler_output.flatten(1), model(pixels).logits
    found = {"features": features, "logits": logits}
    return {"size": np.array(image.shape[1:3])} | {k: x.numpy().astype(np.float32) for k, x in found.items()}


def _names(path: Path, folder: Path) -> dict[str, np.ndarray]:
    """Keeps the names of a file, and gives weights for them."""
    names = seeded_weights.header(path)
    write_names(folder, names)
    return seeded_weights.fill(names)


def write_names(folder: Path, names: seeded_weights.Names) -> None:
    lines = [f"{json.dumps(name)}: {json.dumps([dtype, list(shape)])}" for name, (dtype, shape) in names.items()]
    (folder / "names.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def make_timm(name: str, folder: Path) -> Outputs:
    build, size, architecture = TIMM[name]
    model = build()
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "model.safetensors"
        if name == "hybrid_timm_root":
            save_for_hf(model, temporary, safe_serialization=True, model_args={"img_size": size, **ENCODER})
            shutil.copy(Path(temporary) / "config.json", folder)
        else:
            from safetensors.torch import save_file

            save_file(model.state_dict(), path)
            about = dict(timm.get_pretrained_cfg(architecture).to_dict())
            keys = ("input_size", "interpolation", "crop_pct", "mean", "std", "first_conv", "classifier")
            about = {k: about[k] for k in keys}
            arguments: dict[str, Any] = {}
            if name == "hybrid_timm":
                arguments = {"img_size": size, **ENCODER}
            config = {"architecture": architecture, "num_classes": CLASSES, "model_args": arguments}
            (folder / "config.json").write_text(json.dumps(config | {"pretrained_cfg": about}))
        arrays = _names(path, folder)
    model.load_state_dict({k: torch.from_numpy(x) for k, x in arrays.items()}, strict=True)
    return outputs(model, images(name, size))


def make_hugging_face(name: str, folder: Path) -> Outputs:
    build, size = HUGGING_FACE[name]
    model = build()
    path = folder / "model.safetensors"
    model.save_pretrained(folder)
    arrays = _names(path, folder)
    seeded_weights.write(path, arrays)
    model, said = type(model).from_pretrained(folder, output_loading_info=True)
    assert not any(said.values()), said
    path.unlink()
    found = outputs(model, images(name, size))
    if name == "bit_hf":
        BitImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
        return found
    # As google/efficientnet-b0 has it: pixels are divided by the root of the deviation, twice.
    processor = {
        "image_processor_type": "EfficientNetImageProcessor",
        "size": {"height": 64, "width": 64},
        "resample": 0,
        "do_center_crop": False,
        "do_normalize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "rescale_offset": False,
        "include_top": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.47853944, 0.4732864, 0.47434163],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    odd = outputs(model, images("odd", (61, 32)))
    return found | {f"odd_{key}": x for key, x in odd.items()}


def make_google(name: str, folder: Path) -> Outputs:
    make_names, build, size, file = GOOGLE[name]
    names = make_names()
    write_names(folder, names)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / file
        seeded_weights.write(path, seeded_weights.fill(names))
        model = build()
        model.load_pretrained(str(path))
    return outputs(model, images(name, size))


MAKERS: dict[str, Callable[[str, Path], Outputs]] = {
    **dict.fromkeys(TIMM, make_timm),
    **dict.fromkeys(HUGGING_FACE, make_hugging_face),
    **dict.fromkeys(GOOGLE, make_google),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "tests" / "golden" / "families")
    out = parser.parse_args().out
    for name, make in MAKERS.items():
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        np.savez_compressed(folder / "outputs.npz", **make(name, folder))
        for path in folder.glob("*config.json"):  # one form, whatever the library writes
            path.write_text(json.dumps(json.loads(path.read_text()), indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
