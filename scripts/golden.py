"""What golden files hold in common: plain arrays of tensors; of timm models outputs, weights and gradients."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def plain(x: torch.Tensor) -> np.ndarray:
    """float32 on the host."""
    return x.detach().numpy().astype(np.float32)


def recorded(
    model: torch.nn.Module,
    weights: Mapping[str, np.ndarray],
    image: np.ndarray,
    direction: np.ndarray,
    logits: torch.Tensor,
    features: torch.Tensor,
    config: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """The contents of a file; gradients are those of (cos(logits) * direction).sum().

    Args:
      model: whose parameters ``logits`` depend on.
      weights: under timm's names.
      image: float32 [B, H, W, C].
      direction: float32 [B, classes].
      logits: [B, classes].
      features: [B, D].
      config: what builds the same model here.
    """
    (torch.cos(logits) * torch.from_numpy(direction)).sum().backward()
    return {
        "config": np.array(json.dumps(config)),
        "image": image,
        "direction": direction,
        "logits": plain(logits),
        "features": plain(features),
        **{f"weight/{k}": v for k, v in weights.items()},
        **{f"gradient/{k}": plain(p.grad) for k, p in model.named_parameters()},
    }
