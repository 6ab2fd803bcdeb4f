"""Parity of ViT-B/16 at its real size, through the files that timm and transformers write.

    TORCH_PYTHON scripts/check_real_size.py make DIR       # with scripts/requirements-parity.txt
    VITAX_PYTHON scripts/check_real_size.py compare DIR    # reads the files; exits with 1 above 1e-5

Random float32 weights; torch computes in float64.
"""

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np


def make(folder: Path) -> None:
    """Writes ``timm/`` and ``hf/``, each with a model and its outputs on two images."""
    import make_published_golden as golden
    import timm
    from timm.models._hub import save_for_hf
    from transformers import ViTConfig, ViTForImageClassification

    for name, seed in (("timm", 0), ("hf", 1)):
        model: Any = (
            timm.create_model("vit_base_patch16_224")
            if name == "timm"
            else ViTForImageClassification(ViTConfig(num_labels=1000))
        )
        golden.fill(model, seed)
        if name == "timm":
            save_for_hf(model, str(folder / name), safe_serialization=True)
        else:
            model.save_pretrained(folder / name)
        image = golden.images(seed, 224)
        outputs = golden.timm_outputs(model, image) if name == "timm" else golden.hf_outputs(model, image)
        np.savez(folder / name / "outputs.npz", image=image, **outputs)


def compare(folder: Path) -> None:
    """Loads both and prints max|diff| / max|ref|."""
    import jax
    import jax.numpy as jnp

    from vitax.construct import construct
    from vitax.models.table import MODELS
    from vitax.weights import reading

    worst = 0.0
    for name in ("timm", "hf"):
        start = time.monotonic()
        found = reading.load(str(folder / name)).whole()
        seconds = time.monotonic() - start
        tree: dict[str, Any] = {}
        for path, value in found.params.items():
            *folders, leaf = path.split("/")
            node = tree
            for part in folders:
                node = node.setdefault(part, {})
            node[leaf] = jnp.asarray(np.asarray(value))
        model = construct(MODELS, found.recipe["model"], "model")
        with np.load(folder / name / "outputs.npz") as file:
            want = dict(file)
        have = jax.jit(model.apply)({"params": tree}, want["image"])
        for key, value in (("logits", have.logits), ("features", have.features)):
            error = float(np.abs(np.asarray(value) - want[key]).max() / np.abs(want[key]).max())
            print(f"{name} {key}: {error:.1e}")
            worst = max(worst, error)
        print(f"{name}: {found.lines[0].rpartition(': ')[2]}, read in {seconds:.2f} s")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    raise SystemExit(int(worst > 1e-5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("make", "compare"))
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    {"make": make, "compare": compare}[args.verb](args.folder)


if __name__ == "__main__":
    main()
