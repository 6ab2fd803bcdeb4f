"""Writes tests/golden/vit_timm_*.npz: small random timm ViTs, their outputs and gradients.

    python scripts/make_parity_golden.py [--out tests/golden]

Needs scripts/requirements-parity.txt. Weights are float32; torch computes in
float64, so that the whole difference to float32 results is theirs. Each file
holds ``image`` [B, H, W, C], ``weight/NAME`` and ``gradient/NAME`` under timm's
names, ``logits``, ``features``, ``direction`` [B, classes] and ``config`` (JSON);
gradients are those of (cos(logits) * direction).sum().
"""

import argparse
import functools
from pathlib import Path
from typing import Any

import fake_torchvision
import numpy as np

fake_torchvision.install()

import golden  # noqa: E402
import torch  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

SHARED = {"embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 1.5, "num_classes": 5}
# name -> (timm fields, epsilon of the norms, activation)
CONFIGS: dict[str, tuple[dict[str, Any], float, str]] = {
    "tok_erf": ({"img_size": (8, 12), "patch_size": 4}, 1e-6, "gelu"),
    "tok_tanh_scale": ({"img_size": 8, "patch_size": 4, "init_values": 0.5}, 1e-6, "gelu_tanh"),
    "gap_registers": (
        {
            "img_size": (8, 12),
            "patch_size": (4, 2),
            "global_pool": "avg",
            "class_token": False,
            "reg_tokens": 3,
            "no_embed_class": True,
            "fc_norm": True,
        },
        1e-5,
        "gelu",
    ),
    "gap_tokens": (
        {"img_size": 8, "patch_size": 4, "depth": 1, "global_pool": "avg", "class_token": False, "fc_norm": False},
        1e-3,
        "gelu_tanh",
    ),
    "map": (
        {
            "img_size": (12, 8),
            "patch_size": 4,
            "depth": 1,
            "global_pool": "map",
            "class_token": False,
            "fc_norm": False,
        },
        1e-6,
        "gelu",
    ),
}


def make(name: str) -> dict[str, np.ndarray]:
    """The contents of one golden file."""
    fields, epsilon, activation = CONFIGS[name]
    rng = np.random.default_rng(sorted(CONFIGS).index(name))
    norm = functools.partial(torch.nn.LayerNorm, eps=epsilon)
    model = VisionTransformer(**SHARED | fields, norm_layer=norm, act_layer=activation)
    epsilons = {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)}
    assert epsilons == {epsilon}, epsilons

    weights = {}
    for key, value in model.state_dict().items():
        noise = rng.standard_normal(tuple(value.shape))
        if value.ndim > 1:
            fan_in = 1 if value.shape[0] == 1 else int(np.prod(value.shape[1:]))
            weight = noise / np.sqrt(fan_in)
        else:
            weight = 0.2 * noise + (1.0 if "norm" in key and key.endswith("weight") else 0.0)
        weights[key] = weight.astype(np.float32)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    model = model.double().eval()

    height, width = model.patch_embed.img_size
    image = rng.standard_normal((2, height, width, 3)).astype(np.float32)
    direction = rng.standard_normal((2, SHARED["num_classes"])).astype(np.float32)
    tokens = model.forward_features(torch.from_numpy(image.transpose(0, 3, 1, 2)).double())
    features = model.forward_head(tokens, pre_logits=True)
    logits = model.head(features)
    config = {"timm": SHARED | fields, "norm_eps": epsilon, "activation": activation}
    return golden.recorded(model, weights, image, direction, logits, features, config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "tests" / "golden")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name in CONFIGS:
        np.savez_compressed(out / f"vit_timm_{name}.npz", **make(name))


if __name__ == "__main__":
    main()
