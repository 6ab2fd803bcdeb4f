"""Writes tests/golden/gpt_hf_*.npz: small random GPTs of transformers, their logits and gradients.

    python scripts/make_gpt_golden.py [--out tests/golden]

Needs scripts/requirements-parity.txt. Weights are float32; torch computes in float64, so
that the whole difference to float32 results is theirs. Each file holds ``tokens`` [B, T],
``weight/NAME`` and ``gradient/NAME`` under the names in transformers' files, ``logits``,
``direction`` [B, T, V] and ``config`` (JSON); gradients are those of
(cos(logits) * direction).sum().
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden import plain
from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

SHARED = {"vocab_size": 19, "n_positions": 9, "n_embd": 16, "n_layer": 2, "n_head": 2}
MODELS: dict[str, tuple[Any, Any]] = {
    "gpt1": (OpenAIGPTConfig, OpenAIGPTLMHeadModel),
    "gpt2": (GPT2Config, GPT2LMHeadModel),
}


def make(name: str) -> dict[str, np.ndarray]:
    """The contents of one golden file."""
    config_class, model_class = MODELS[name]
    rng = np.random.default_rng(sorted(MODELS).index(name))
    config = config_class(**SHARED)
    config._attn_implementation = "eager"
    model = model_class(config)
    weights = {}
    for key, value in model.named_parameters():  # once each: the head is the embedding
        noise = rng.standard_normal(tuple(value.shape))
        if value.ndim > 1:
            fan_in = value.shape[1] if "wte" in key or "embed" in key else value.shape[0]
            weight = noise / np.sqrt(fan_in)
        else:
            weight = 0.2 * noise + (1.0 if "ln_" in key and key.endswith("weight") else 0.0)
        weights[key] = weight.astype(np.float32)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
    model = model.double().eval()
    tokens = rng.integers(0, SHARED["vocab_size"], (3, 7))
    logits = model(torch.from_numpy(tokens)).logits
    direction = rng.standard_normal(tuple(logits.shape)).astype(np.float32)
    (torch.cos(logits) * torch.from_numpy(direction)).sum().backward()

    return {
        "config": np.array(json.dumps(SHARED | {"layer_norm_epsilon": config.layer_norm_epsilon})),
        "tokens": tokens.astype(np.int32),
        "direction": direction,
        "logits": plain(logits),
        **{f"weight/{k}": v for k, v in weights.items()},
        **{f"gradient/{k}": plain(p.grad) for k, p in model.named_parameters()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "tests" / "golden")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        np.savez_compressed(out / f"gpt_hf_{name}.npz", **make(name))


if __name__ == "__main__":
    main()
