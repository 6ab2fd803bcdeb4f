"""Loads what ``vitax convert`` wrote into timm and transformers, strictly, and compares outputs.

    python scripts/check_published_export.py LAYOUT PATH OUTPUTS.npz [LAYOUT PATH OUTPUTS.npz ...]

LAYOUT is timm, hf or npz; OUTPUTS.npz holds ``image`` [B, H, W, 3] and ``logits`` or
``features`` to compare with. Needs scripts/requirements-parity.txt. Prints
max|diff| / max|ref| of each and exits with 1 above 1e-5.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import make_published_golden as golden
import numpy as np
import timm
import torch
import transformers
from safetensors.torch import load_file

TOLERANCE = 1e-5


def check(layout: str, path: Path, want: dict[str, np.ndarray]) -> dict[str, float]:
    """Relative errors of ``logits`` and ``features``, whichever both have."""
    have = {"timm": _timm, "hf": _hugging_face, "npz": _npz}[layout](path, want["image"])
    names = [name for name in ("logits", "features") if name in want and name in have]
    return {name: float(np.abs(have[name] - want[name]).max() / np.abs(want[name]).max()) for name in names}


def _timm(path: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    model = timm.create_model(f"local-dir:{path.absolute()}", pretrained=True)
    model.load_state_dict(load_file(path / "model.safetensors"), strict=True)
    return golden.timm_outputs(model, image)


def _hugging_face(path: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    config = json.loads((path / "config.json").read_text())
    kind: Any = getattr(transformers, config["architectures"][0])
    # Without pre_logits there is no pooler to load, and none is asked for.
    pooler = "pooler.dense.weight" in load_file(path / "model.safetensors")
    options = {"add_pooling_layer": False} if kind is transformers.ViTModel and not pooler else {}
    model, found = kind.from_pretrained(path, output_loading_info=True, **options)
    problems = {k: v for k, v in found.items() if v}
    assert not problems, problems
    with torch.no_grad():
        if options:
            out = model.double().eval()(golden._torch(image))
            return golden._plain(features=out.last_hidden_state[:, 0])
        return golden.hf_outputs(model, image)


def _npz(path: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        names = set(file.files)
        root = "params/" if "params/embedding/kernel" in names else ""
        classes = file[f"{root}head/bias"].shape[0] if f"{root}head/bias" in names else 0
    model = golden.google_twin(bool(root), "map" if f"{root}MAPHead_0/probe" in names else "tok", classes)
    model.load_pretrained(str(path))
    return golden.timm_outputs(model, image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("triples", nargs="+", metavar="LAYOUT PATH OUTPUTS")
    words = parser.parse_args().triples
    worst = 0.0
    for layout, path, outputs in zip(words[::3], words[1::3], words[2::3]):
        with np.load(outputs) as file:
            errors = check(layout, Path(path), dict(file))
        print(layout, path, {name: f"{e:.1e}" for name, e in errors.items()})
        worst = max([worst, *errors.values()])
    raise SystemExit(int(worst > TOLERANCE))


if __name__ == "__main__":
    main()
