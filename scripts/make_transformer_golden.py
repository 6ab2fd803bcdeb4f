"""Writes tests/golden/transformer_torch_*.npz: small random torch.nn.Transformers and their logits.

    python scripts/make_transformer_golden.py [--out tests/golden]

Needs scripts/requirements-parity.txt. Weights are float32; torch computes in float64, so
that the whole difference to float32 results is theirs. torch has the two stacks alone:
the shared embedding, its scale, the positions and the output are those of the paper
(arXiv:1706.03762, sections 3.4 and 3.5), written out here. Each file holds ``source``,
``tokens`` [B, T], ``weight/NAME``, ``gradient/NAME``, ``logits``, ``direction`` [B, T, V]
and ``config`` (JSON); gradients are those of (cos(logits) * direction).sum().
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from golden import plain
from torch import nn

CONFIG = {"width": 16, "depth": 2, "mlp_dim": 24, "num_heads": 2, "vocab_size": 19, "context": 9}
NORMS = ("post", "pre")
# Source tokens that are no padding, of 7.
LENGTHS = (7, 5, 3)


def positions(length: int, width: int) -> torch.Tensor:
    """Section 3.5, element by element."""
    table = torch.zeros(length, width, dtype=torch.float64)
    for p in range(length):
        for i in range(0, width, 2):
            table[p, i] = math.sin(p / 10_000 ** (i / width))
            table[p, i + 1] = math.cos(p / 10_000 ** (i / width))
    return table


def stacks(norm: str) -> nn.Module:
    """Encoder and decoder; the published form has no norm behind the last block."""
    width, heads, depth = CONFIG["width"], CONFIG["num_heads"], CONFIG["depth"]
    options = {"dropout": 0.0, "activation": "relu", "layer_norm_eps": 1e-6, "batch_first": True}
    options |= {"norm_first": norm == "pre"}

    def last() -> nn.Module | None:
        return nn.LayerNorm(width, eps=1e-6) if norm == "pre" else None

    encoder = nn.TransformerEncoderLayer(width, heads, CONFIG["mlp_dim"], **options)
    decoder = nn.TransformerDecoderLayer(width, heads, CONFIG["mlp_dim"], **options)
    return nn.ModuleDict(
        {
            "encoder": nn.TransformerEncoder(encoder, depth, last(), enable_nested_tensor=False),
            "decoder": nn.TransformerDecoder(decoder, depth, last()),
        }
    )


def make(norm: str) -> dict[str, np.ndarray]:
    """The contents of one golden file."""
    rng = np.random.default_rng(NORMS.index(norm))
    model = stacks(norm)
    model["embedding"] = nn.Embedding(CONFIG["vocab_size"], CONFIG["width"])
    weights = {}
    for key, value in model.named_parameters():
        noise = rng.standard_normal(tuple(value.shape))
        scale = 0.2 if value.ndim == 1 else value.shape[1] ** -0.5
        is_scale = "norm" in key and key.endswith("weight")
        weights[key] = (scale * noise + (1.0 if is_scale else 0.0)).astype(np.float32)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    model = model.double().train()  # without dropout: the fast path of eval() has no gradients

    source, tokens = (torch.from_numpy(rng.integers(0, CONFIG["vocab_size"], (3, n))) for n in (7, 6))
    padding = torch.arange(7)[None] >= torch.tensor(LENGTHS)[:, None]
    table = positions(CONFIG["context"], CONFIG["width"])

    def embed(ids: torch.Tensor) -> torch.Tensor:
        return model["embedding"](ids) * math.sqrt(CONFIG["width"]) + table[: ids.shape[1]]

    memory = model["encoder"](embed(source), src_key_padding_mask=padding)
    ahead = torch.ones(6, 6, dtype=torch.bool).triu(1)
    decoded = model["decoder"](embed(tokens), memory, tgt_mask=ahead, memory_key_padding_mask=padding)
    logits = decoded @ model["embedding"].weight.T
    direction = rng.standard_normal(tuple(logits.shape)).astype(np.float32)
    (torch.cos(logits) * torch.from_numpy(direction)).sum().backward()

    return {
        "config": np.array(json.dumps(CONFIG | {"norm": norm})),
        "source": source.numpy().astype(np.int32),
        "source_segments": (~padding).numpy().astype(np.int32),
        "tokens": tokens.numpy().astype(np.int32),
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
    for norm in NORMS:
        np.savez_compressed(out / f"transformer_torch_{norm}.npz", **make(norm))


if __name__ == "__main__":
    main()
