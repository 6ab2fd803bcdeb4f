"""Writes tests/golden/efficientnet_timm_*.npz: small random timm EfficientNets, their outputs and gradients.

    python scripts/make_efficientnet_golden.py [--out tests/golden]

Needs scripts/requirements-parity.txt. Weights are float32; torch computes in float64,
so that the whole difference to float32 results is theirs. Each file holds ``image``
[B, H, W, C], ``weight/NAME`` (running statistics included) and ``gradient/NAME`` under
timm's names, ``logits``, ``features``, ``direction`` [B, classes] and ``config`` (JSON),
all in evaluation mode; gradients are those of (cos(logits) * direction).sum(). Then, of
one pass in training mode: ``trained/NAME`` (running statistics after it), ``count/NAME``
(elements a channel that each norm saw) and ``trained_logits``.
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
from timm.models._efficientnet_builder import decode_arch_def  # noqa: E402
from timm.models.efficientnet import EfficientNet  # noqa: E402

CLASSES = 5
FEATURES = {"stem_size": 8, "num_features": 24, "num_classes": CLASSES}
# In timm's notation: type, repeats, kernel, stride, expansion, channels, squeeze; and the same as ours.
STAGES = ("ds_r1_k3_s1_e1_c8", "ir_r2_k5_s2_e2_c16", "ir_r1_k3_s1_e3_c16")
OURS = ((3, 1, 1, 8, 1), (5, 2, 2, 16, 2), (3, 1, 3, 16, 1))
# name -> (squeeze, activation, padding of timm, epsilon and momentum (PyTorch's convention) of the norms)
CONFIGS: dict[str, tuple[float, str, str, float, float]] = {
    "same": (0.25, "silu", "same", 1e-3, 0.01),
    "symmetric": (0.25, "silu", "", 1e-5, 0.1),
    "lite": (0.0, "relu6", "same", 1e-3, 0.01),
}
ACTIVATIONS: dict[str, Any] = {"silu": torch.nn.SiLU, "relu6": torch.nn.ReLU6}


def make(name: str) -> dict[str, np.ndarray]:
    """The contents of one golden file."""
    squeeze, activation, padding, epsilon, momentum = CONFIGS[name]
    rng = np.random.default_rng(sorted(CONFIGS).index(name))
    arch = [[stage + (f"_se{squeeze}" if squeeze else "")] for stage in STAGES]
    model = EfficientNet(
        decode_arch_def(arch),
        **FEATURES,
        round_chs_fn=lambda channels: channels,
        pad_type=padding,
        act_layer=ACTIVATIONS[activation],
        norm_layer=functools.partial(torch.nn.BatchNorm2d, eps=epsilon, momentum=momentum),
    )
    norms = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert {(m.eps, m.momentum) for m in norms.values()} == {(epsilon, momentum)}

    weights = {}
    for key, value in model.state_dict().items():
        noise = rng.standard_normal(tuple(value.shape))
        if key.endswith("num_batches_tracked"):
            continue
        if value.ndim > 1:
            weight = noise / np.sqrt(np.prod(value.shape[1:]))
        elif key.endswith("running_var"):
            weight = np.exp(0.3 * noise)
        else:
            weight = 0.2 * noise + (1.0 if key.rpartition(".")[0] in norms and key.endswith(".weight") else 0.0)
        weights[key] = weight.astype(np.float32)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
    model = model.double().eval()

    # An odd and an even side: the two paddings differ on even ones alone.
    image = rng.standard_normal((3, 13, 16, 3)).astype(np.float32)
    direction = rng.standard_normal((3, CLASSES)).astype(np.float32)
    inputs = torch.from_numpy(image.transpose(0, 3, 1, 2)).double()
    features = model.forward_head(model.forward_features(inputs), pre_logits=True)
    logits = model.classifier(features)
    config = {
        "fields": {"stages": OURS, "squeeze": squeeze, "activation": activation},
        "padding": padding or "symmetric",
        "norm_eps": epsilon,
        "norm_momentum": 1.0 - momentum,
    }
    found = golden.recorded(model, weights, image, direction, logits, features, config)
    counts: dict[str, int] = {}
    for key, norm in norms.items():
        norm.register_forward_pre_hook(lambda _, x, key=key: counts.update({key: x[0][:, 0].numel()}))
    trained_logits = model.train()(inputs)
    return found | {
        "trained_logits": golden.plain(trained_logits),
        **{f"trained/{k}": golden.plain(v) for k, v in model.state_dict().items() if "running" in k},
        **{f"count/{k}": np.array(v) for k, v in counts.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "tests" / "golden")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name in CONFIGS:
        np.savez_compressed(out / f"efficientnet_timm_{name}.npz", **make(name))


if __name__ == "__main__":
    main()
