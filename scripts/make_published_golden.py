"""Writes tests/golden/published/: small random ViTs as timm, transformers and Google's code store them.

    python scripts/make_published_golden.py [--out tests/golden/published]

Needs scripts/requirements-parity.txt. One folder a model: the weight file and the
configuration that the library writes beside it, and ``outputs.npz`` with ``image``
[B, H, W, 3], ``logits`` (where there is a head) and ``features``, and, where the model
was also run on larger images, the same with ``large_`` in front. Weights are float32;
torch computes in float64. ``resample.npz`` holds tables and kernels resampled by torch.
Google's files are spelt out here and read by timm's own loader.
"""

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_torchvision
import numpy as np

fake_torchvision.install()

import timm  # noqa: E402
import torch  # noqa: E402
from timm.layers import resample_abs_pos_embed, resample_patch_embed  # noqa: E402
from timm.models._hub import save_for_hf  # noqa: E402
from timm.models.vision_transformer import checkpoint_filter_fn  # noqa: E402
from transformers import (  # noqa: E402
    DeiTConfig,
    DeiTForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

WIDTH, DEPTH, HEADS, MLP, CLASSES, SIZE, PATCH = 16, 2, 2, 24, 5, 12, 4
Outputs = dict[str, np.ndarray]

# name -> (timm architecture, model_args)
_SMALL = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "mlp_ratio": MLP / WIDTH, "patch_size": PATCH}
TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "timm_tok": ("vit_tiny_patch16_224", {"num_classes": CLASSES}),
    "timm_deit": ("deit_tiny_patch16_224", {"num_classes": CLASSES}),
    "timm_registers": (
        "vit_small_patch14_reg4_dinov2",
        {"num_classes": 0, "reg_tokens": 4, "init_values": 1e-5, "no_embed_class": True},
    ),
    "timm_registers_with_positions": (
        "vit_tiny_patch16_224",
        {"num_classes": CLASSES, "reg_tokens": 2, "no_embed_class": False},
    ),
    "timm_gap_with_cls": ("vit_tiny_patch16_224", {"num_classes": CLASSES, "global_pool": "avg"}),
    "timm_map": ("vit_base_patch16_siglip_224", {"num_classes": 0}),
}


def fill(model: torch.nn.Module, seed: int) -> None:
    """Random float32 weights of the size that keeps activations near 1."""
    rng = np.random.default_rng(seed)
    filled = {}
    for key, value in model.state_dict().items():
        shape = tuple(value.shape)
        noise = rng.standard_normal(shape)
        if value.ndim > 1 and key.endswith("weight"):
            noise = noise / np.sqrt(np.prod(shape[1:]))
        elif value.ndim == 1:
            noise = 0.2 * noise + (1.0 if "norm" in key and key.endswith("weight") else 0.0)
        filled[key] = torch.from_numpy(noise.astype(np.float32))
    model.load_state_dict(filled)


def images(seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed + 1000).standard_normal((2, size, size, 3)).astype(np.float32)


def _torch(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(0, 3, 1, 2)).double()


def _plain(**tensors: torch.Tensor | None) -> Outputs:
    return {k: x.detach().numpy().astype(np.float32) for k, x in tensors.items() if x is not None}


def timm_outputs(model: Any, image: np.ndarray) -> Outputs:
    """Logits and features in float64."""
    model = model.double().eval()
    features = model.forward_head(model.forward_features(_torch(image)), pre_logits=True)
    out = _plain(features=features, logits=model.head(features) if model.num_classes else None)
    model.float()
    return out


def _large(outputs: Outputs, image: np.ndarray) -> Outputs:
    return {f"large_{name}": x for name, x in ({"image": image} | outputs).items()}


def make_timm(name: str, folder: Path) -> Outputs:
    architecture, own = TIMM[name]
    seed = sorted(TIMM).index(name)
    fields = _SMALL | {"img_size": SIZE} | own
    model = timm.create_model(architecture, **fields)
    fill(model, seed)
    save_for_hf(model, str(folder), safe_serialization=True, model_args=fields)
    image = images(seed)
    outputs = {"image": image} | timm_outputs(model, image)
    if name == "timm_tok":
        larger = timm.create_model(architecture, **fields | {"img_size": 20})
        larger.load_state_dict(checkpoint_filter_fn(model.state_dict(), larger))
        image = images(seed, 20)
        outputs |= _large(timm_outputs(larger, image), image)
    return outputs


_HF = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "image_size": SIZE}
_HF |= {"patch_size": PATCH, "num_labels": CLASSES}
_NAMES = {"id2label": {i: f"kind {i}" for i in range(CLASSES)}, "label2id": {f"kind {i}": i for i in range(CLASSES)}}
HUGGING_FACE: dict[str, Callable[[], torch.nn.Module]] = {
    "hf_vit": lambda: ViTForImageClassification(ViTConfig(**_HF, **_NAMES, intermediate_size=MLP)),
    "hf_vit_model": lambda: ViTModel(ViTConfig(**_HF, intermediate_size=MLP, hidden_act="gelu_new")),
    "hf_deit": lambda: DeiTForImageClassification(DeiTConfig(**_HF, intermediate_size=MLP)),
    "hf_dinov2": lambda: Dinov2ForImageClassification(Dinov2Config(**_HF, mlp_ratio=2)),
    "hf_dinov2_registers": lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**_HF, mlp_ratio=2)),
}


def hf_outputs(model: Any, image: np.ndarray, **options: Any) -> Outputs:
    """Logits, and the pooled output or cls token, in float64."""
    model = model.double().eval()
    out = model(_torch(image), output_hidden_states=True, **options)
    if hasattr(out, "logits"):
        base = getattr(model, model.base_model_prefix)
        two = isinstance(model, Dinov2ForImageClassification)  # its head reads two tokens, which ours does not
        tokens = base(_torch(image), **options).last_hidden_state
        found = _plain(features=tokens[:, 0], logits=None if two else out.logits)
    else:
        pooled = isinstance(model, ViTModel)
        found = _plain(features=out.pooler_output if pooled else out.last_hidden_state[:, 0])
    model.float()
    return found


def make_hugging_face(name: str, folder: Path) -> Outputs:
    seed = 100 + sorted(HUGGING_FACE).index(name)
    model = HUGGING_FACE[name]()
    fill(model, seed)
    model.save_pretrained(folder)
    if name == "hf_vit":
        ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    image = images(seed)
    outputs = {"image": image} | hf_outputs(model, image)
    if name == "hf_vit":
        image = images(seed, 20)
        outputs |= _large(hf_outputs(model, image, interpolate_pos_encoding=True), image)
    return outputs


def google_arrays(rng: np.random.Generator, big_vision: bool, pool: str, classes: int) -> dict[str, np.ndarray]:
    """A ViT in vit_jax's names before Linen, or in big_vision's."""
    norm_1, attention, norm_2, mlp = (0, 0, 1, 0) if big_vision else (0, 1, 2, 3)
    head = WIDTH // HEADS
    arrays: dict[str, np.ndarray] = {}

    def put(name: str, *shape: int, fan_in: int = 1, around: float = 0.0) -> None:
        arrays[name] = (rng.standard_normal(shape) / np.sqrt(fan_in) + around).astype(np.float32)

    def norm(name: str) -> None:
        put(f"{name}/scale", WIDTH, fan_in=25, around=1.0)
        put(f"{name}/bias", WIDTH, fan_in=25)

    def attend(name: str) -> None:
        for part in ("query", "key", "value"):
            put(f"{name}/{part}/kernel", WIDTH, HEADS, head, fan_in=WIDTH)
            put(f"{name}/{part}/bias", HEADS, head, fan_in=25)
        put(f"{name}/out/kernel", HEADS, head, WIDTH, fan_in=WIDTH)
        put(f"{name}/out/bias", WIDTH, fan_in=25)

    def two(name: str) -> None:
        put(f"{name}/Dense_0/kernel", WIDTH, MLP, fan_in=WIDTH)
        put(f"{name}/Dense_0/bias", MLP, fan_in=25)
        put(f"{name}/Dense_1/kernel", MLP, WIDTH, fan_in=MLP)
        put(f"{name}/Dense_1/bias", WIDTH, fan_in=25)

    put("embedding/kernel", PATCH, PATCH, 3, WIDTH, fan_in=PATCH * PATCH * 3)
    put("embedding/bias", WIDTH, fan_in=25)
    if pool == "tok":
        put("cls", 1, 1, WIDTH)
    patches = (SIZE // PATCH) ** 2
    if big_vision:
        put("pos_embedding", 1, patches, WIDTH)
    else:
        put("Transformer/posembed_input/pos_embedding", 1, patches + 1, WIDTH)
    for i in range(DEPTH):
        block = f"Transformer/encoderblock_{i}"
        norm(f"{block}/LayerNorm_{norm_1}")
        attend(f"{block}/MultiHeadDotProductAttention_{attention}")
        norm(f"{block}/LayerNorm_{norm_2}")
        two(f"{block}/MlpBlock_{mlp}")
    norm("Transformer/encoder_norm")
    if pool == "map":
        put("MAPHead_0/probe", 1, 1, WIDTH)
        attend("MAPHead_0/MultiHeadDotProductAttention_0")
        norm("MAPHead_0/LayerNorm_0")
        two("MAPHead_0/MlpBlock_0")
    if classes:
        put("head/kernel", WIDTH, classes, fan_in=WIDTH)
        put("head/bias", classes, fan_in=25)
    return arrays


# name -> (file name, root, big_vision, pool, classes)
GOOGLE = {
    "google_vit_jax": ("ViT-B_16.npz", "", False, "tok", CLASSES),
    "google_big_vision": ("big_vision.npz", "params/", True, "tok", CLASSES),
    "google_siglip": ("siglip.npz", "params/img/", True, "map", 0),
}


def google_twin(big_vision: bool, pool: str, classes: int) -> Any:
    """The timm model that timm's loader puts a Google file into."""
    fields = _SMALL | {"img_size": SIZE, "num_classes": classes, "act_layer": "gelu_tanh"}
    if pool == "map":
        fields |= {"global_pool": "map", "class_token": False}
    elif big_vision:
        fields |= {"no_embed_class": True}
    return timm.create_model("vit_tiny_patch16_224", **fields)


def make_google(name: str, folder: Path) -> Outputs:
    file, root, big_vision, pool, classes = GOOGLE[name]
    seed = 200 + sorted(GOOGLE).index(name)
    rng = np.random.default_rng(seed)
    arrays = {f"{root}{key}": x for key, x in google_arrays(rng, big_vision, pool, classes).items()}
    if root == "params/img/":
        arrays["params/txt/Embed_0/embedding"] = rng.standard_normal((7, WIDTH)).astype(np.float32)
        arrays["params/t"] = np.ones(1, np.float32)
        arrays["params/b"] = np.ones(1, np.float32)
    np.savez(folder / file, **arrays)
    model = google_twin(big_vision, pool, classes)
    model.load_pretrained(str(folder / file))
    image = images(seed)
    return {"image": image} | timm_outputs(model, image)


def make_resampled() -> Outputs:
    """Tables [1, slots, D] and kernels [P, Q, C, D] as torch resamples them."""
    rng = np.random.default_rng(300)
    table = rng.standard_normal((1, 1 + 3 * 5, 4)).astype(np.float32)
    kernel = rng.standard_normal((6, 4, 3, 5)).astype(np.float32)
    found = {"table": table, "kernel": kernel}
    grid = torch.from_numpy(table[:, 1:]).double().reshape(1, 3, 5, 4).permute(0, 3, 1, 2)
    for new in ((7, 4), (2, 2), (6, 10)):
        with_antialias = resample_abs_pos_embed(torch.from_numpy(table), list(new), [3, 5])
        found[f"antialiased_bicubic_{new[0]}x{new[1]}"] = with_antialias.numpy()
        plain = torch.nn.functional.interpolate(grid, size=new, mode="bicubic", align_corners=False)
        flat = plain.permute(0, 2, 3, 1).reshape(1, -1, 4).numpy().astype(np.float32)
        found[f"bicubic_{new[0]}x{new[1]}"] = np.concatenate([table[:, :1], flat], 1)
    for size in ((8, 9), (3, 2)):
        weight = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        found[f"kernel_{size[0]}x{size[1]}"] = resample_patch_embed(weight, list(size)).numpy().transpose(2, 3, 1, 0)
    return found


MAKERS: dict[str, Callable[[str, Path], Outputs]] = {
    **dict.fromkeys(TIMM, make_timm),
    **dict.fromkeys(HUGGING_FACE, make_hugging_face),
    **dict.fromkeys(GOOGLE, make_google),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "tests" / "golden" / "published")
    out = parser.parse_args().out
    for name, make in MAKERS.items():
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        np.savez_compressed(folder / "outputs.npz", **make(name, folder))
        for path in folder.glob("*.json"):  # one form, whatever the library writes
            path.write_text(json.dumps(json.loads(path.read_text()), indent=1, sort_keys=True) + "\n")
    np.savez_compressed(out / "resample.npz", **make_resampled())


if __name__ == "__main__":
    main()
