"""Parity at real sizes, one a family and library, in both directions, through the files that the libraries write.

    TORCH_PYTHON scripts/check_family_sizes.py make DIR     # with scripts/requirements-parity.txt
    VITAX_PYTHON -m scripts.check_family_sizes here DIR     # reads them, and writes them back with vitax convert
    TORCH_PYTHON scripts/check_family_sizes.py there DIR    # reads what was written back, strictly

Random float32 weights (``seeded_weights``); torch computes in float64. ``here`` and
``there`` print max|diff| / max|ref| of logits and features, and exit with 1 above 1e-5.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 1e-5
# name -> target of vitax convert that gives the same library's files again
BACK = {
    "vit_b16_timm": "timm",
    "vit_b16_hf": "hf",
    "bit_r50x1_timm": "timm",
    "bit_r50x1_hf": "hf",
    "efficientnet_b0_timm_tf": "timm",
    "efficientnet_b0_timm": "timm",
    "efficientnet_b0_hf": "hf",
    "hybrid_r26_s32_timm": "timm",
}
_TIMM = {
    "vit_b16_timm": "vit_base_patch16_224",
    "bit_r50x1_timm": "resnetv2_50x1_bit",
    "efficientnet_b0_timm_tf": "tf_efficientnet_b0",
    "efficientnet_b0_timm": "efficientnet_b0",
    "hybrid_r26_s32_timm": "vit_small_r26_s32_224",
}


def _outputs(model: Any, image: np.ndarray) -> dict[str, np.ndarray]:
    import make_families_golden as families
    import make_published_golden as vits

    if hasattr(model, "vit"):
        return vits.hf_outputs(model, image)
    found = families.outputs(model, image)
    return {name: found[name] for name in ("logits", "features")}


def _hugging_face() -> dict[str, Callable[[], Any]]:
    import transformers as t

    b0 = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280, "image_size": 224}
    return {
        "vit_b16_hf": lambda: t.ViTForImageClassification(t.ViTConfig(num_labels=1000)),
        "bit_r50x1_hf": lambda: t.BitForImageClassification(t.BitConfig(num_labels=1000)),
        "efficientnet_b0_hf": lambda: t.EfficientNetForImageClassification(t.EfficientNetConfig(**b0, num_labels=1000)),
    }


def _image(name: str) -> np.ndarray:
    import seeded_weights

    return seeded_weights.uniform(f"image of {name}", (2, 224, 224, 3)).astype(np.float32)


def make(folder: Path) -> None:
    """Writes a folder a model, as its library does, and the outputs on two images."""
    import make_families_golden  # noqa: F401 (lets timm import)
    import seeded_weights
    import timm
    from timm.models._hub import save_for_hf

    build = _hugging_face()
    for name in BACK:
        path = folder / name / "model.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in _TIMM:
            save_for_hf(timm.create_model(_TIMM[name]), str(path.parent), safe_serialization=True)
        else:
            build[name]().save_pretrained(path.parent)
        seeded_weights.write(path, seeded_weights.fill(seeded_weights.header(path)))
        np.savez(path.parent / "outputs.npz", **_outputs(_load(name, path.parent), _image(name)))


def _load(name: str, folder: Path) -> Any:
    """The library's model with the weights of a folder, every array of them."""
    import timm
    from safetensors.torch import load_file

    if name in _TIMM:
        model = timm.create_model(f"local-dir:{folder.absolute()}", pretrained=True)
        model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
        return model
    model, said = type(_hugging_face()[name]()).from_pretrained(folder, output_loading_info=True)
    assert not any(said.values()), said
    return model


def _compare(name: str, way: str, have: dict[str, Any], want: dict[str, np.ndarray]) -> float:
    errors = {k: float(np.abs(np.asarray(have[k]) - want[k]).max() / np.abs(want[k]).max()) for k in want}
    print(f"{name:<26} {way:<6} " + "  ".join(f"{key} {error:.1e}" for key, error in errors.items()), flush=True)
    return max(errors.values())


def here(folder: Path) -> float:
    """Each file through vitax, and back."""
    import jax

    from scripts import seeded_weights
    from vitax.weights import pretrained, reading, writing

    worst = 0.0
    for name, to in BACK.items():
        found = reading.load(str(folder / name)).whole()
        asked = pretrained.Asked(name, found.recipe["model"], {}, None, None, 0)
        model, variables = pretrained.load(str(folder / name), asked)
        image = seeded_weights.uniform(f"image of {name}", (2, 224, 224, 3)).astype(np.float32)
        out = jax.jit(model.apply)(variables, image)
        with np.load(folder / name / "outputs.npz") as file:
            want = dict(file)
        worst = max(worst, _compare(name, "here", {"logits": out.logits, "features": out.features}, want))
        writing.run(str(folder / name), folder / name / "back", to)
    return worst


def there(folder: Path) -> float:
    """What was written back, through its library."""
    import make_families_golden  # noqa: F401

    worst = 0.0
    for name in BACK:
        with np.load(folder / name / "outputs.npz") as file:
            want = dict(file)
        worst = max(worst, _compare(name, "there", _outputs(_load(name, folder / name / "back"), _image(name)), want))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("make", "here", "there"))
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    if args.verb == "make":
        make(args.folder)
    else:
        raise SystemExit(int({"here": here, "there": there}[args.verb](args.folder) > TOLERANCE))


if __name__ == "__main__":
    main()
