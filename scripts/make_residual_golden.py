"""Writes tests/golden/{bit,hybrid}_timm_*.npz: small random timm residual networks, alone and under a ViT.

    python scripts/make_residual_golden.py [--out tests/golden]

Needs scripts/requirements-parity.txt. As in make_parity_golden.py: float32 weights, torch in
float64, and in each file ``image``, ``weight/NAME`` and ``gradient/NAME`` under timm's names,
``logits``, ``features``, ``direction`` and ``config`` (JSON); gradients are those of
(cos(logits) * direction).sum().
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
from timm.layers import GroupNormAct, HybridEmbed, StdConv2d, StdConv2dSame  # noqa: E402
from timm.models.resnetv2 import ResNetV2, create_resnetv2_stem  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

NUM_CLASSES, ROOT, GROUPS = 5, 8, 4
# name -> (size of the images, units in each stage, epsilon of the norms, epsilon of standardisation)
BIT: dict[str, tuple[tuple[int, int], tuple[int, ...], float, float]] = {
    "two_stages": ((37, 24), (2, 1), 1e-5, 1e-8),
    "epsilons": ((16, 16), (1,), 1e-2, 1e-2),
}
# The same, side of a patch, and fields of the encoder.
HYBRID: dict[str, tuple[tuple[int, int], tuple[int, ...], float, float, int]] = {
    "two_stages": ((16, 24), (2, 1), 1e-5, 1e-8, 1),
    "root": ((16, 16), (), 1e-5, 1e-8, 2),
}
ENCODER = {"embed_dim": 16, "depth": 1, "num_heads": 2, "mlp_ratio": 1.5, "num_classes": NUM_CLASSES}


def make_bit(name: str) -> dict[str, np.ndarray]:
    """The contents of one golden file of a BiT."""
    size, blocks, norm_eps, std_eps = BIT[name]
    model = ResNetV2(
        layers=list(blocks),
        channels=_channels(blocks),
        num_classes=NUM_CLASSES,
        stem_chs=ROOT,
        stem_type="fixed",
        conv_layer=functools.partial(StdConv2d, eps=std_eps),
        norm_layer=_norm(norm_eps),
    )
    config = {"blocks": blocks, "norm_eps": norm_eps, "std_eps": std_eps}
    return _contents(model, size, sorted(BIT).index(name), config)


def make_hybrid(name: str) -> dict[str, np.ndarray]:
    """The contents of one golden file of a hybrid."""
    size, blocks, norm_eps, std_eps, patch = HYBRID[name]
    shared = {
        "stem_type": "same",
        "preact": False,
        "conv_layer": functools.partial(StdConv2dSame, eps=std_eps),
        "norm_layer": _norm(norm_eps),
    }
    if blocks:
        channels = _channels(blocks)
        stem: Any = ResNetV2(
            layers=list(blocks), channels=channels, num_classes=0, global_pool="", stem_chs=ROOT, **shared
        )
    else:
        stem = create_resnetv2_stem(3, ROOT, **shared)
    embed = functools.partial(HybridEmbed, backbone=stem)
    model = VisionTransformer(img_size=size, patch_size=patch, embed_layer=embed, **ENCODER)
    config = {"blocks": blocks, "norm_eps": norm_eps, "std_eps": std_eps, "patch": patch, "encoder": ENCODER}
    return _contents(model, size, 10 + sorted(HYBRID).index(name), config)


def _norm(epsilon: float) -> Any:
    return functools.partial(GroupNormAct, num_groups=GROUPS, eps=epsilon)


def _channels(blocks: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(4 * ROOT * 2**i for i in range(len(blocks)))


def _contents(model: Any, size: tuple[int, int], seed: int, config: dict[str, Any]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    epsilons = {m.eps for m in model.modules() if isinstance(m, GroupNormAct)}
    assert epsilons == {config["norm_eps"]}, epsilons
    weights = {}
    for key, value in model.state_dict().items():
        noise = rng.standard_normal(tuple(value.shape))
        if value.ndim > 1:
            fan_in = 1 if value.shape[0] == 1 else int(np.prod(value.shape[1:]))
            # Not centred, which standardisation must mend.
            weight = (noise + 0.3 * ("conv" in key)) / np.sqrt(fan_in)
        else:
            weight = 0.2 * noise + (1.0 if "norm" in key and key.endswith("weight") else 0.0)
        weights[key] = weight.astype(np.float32)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    model = model.double().eval()
    image = rng.standard_normal((2, *size, 3)).astype(np.float32)
    direction = rng.standard_normal((2, NUM_CLASSES)).astype(np.float32)
    maps = model.forward_features(torch.from_numpy(image.transpose(0, 3, 1, 2)).double())
    features, logits = (model.forward_head(maps, pre_logits=pre_logits) for pre_logits in (True, False))
    return golden.recorded(model, weights, image, direction, logits, features, config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "tests" / "golden")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name in BIT:
        np.savez_compressed(out / f"bit_timm_{name}.npz", **make_bit(name))
    for name in HYBRID:
        np.savez_compressed(out / f"hybrid_timm_{name}.npz", **make_hybrid(name))


if __name__ == "__main__":
    main()
