"""Writes tests/golden/bert_hf_*.npz: small random BERTs of transformers, their outputs and gradients.

    python scripts/make_bert_golden.py [--out tests/golden]

Needs scripts/requirements-parity.txt. Weights are float32; torch computes in float64, so
that the whole difference to float32 results is theirs. Each file holds ``tokens``,
``types`` and ``mask`` [B, T] (0 = padding), ``weight/NAME`` and ``gradient/NAME`` under the
names in transformers' files, ``output/NAME`` with ``direction/NAME`` of the same shape, and
``config`` (JSON, as in config.json); gradients are those of the sum over all outputs of
(cos(output) * direction).sum(). At padding directions are 0.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden import plain
from transformers import (
    BertConfig,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
)

SHARED = {
    "vocab_size": 19,
    "max_position_embeddings": 9,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
MODELS: dict[str, Any] = {
    "pretraining": BertForPreTraining,
    "model": BertModel,
    "classification": BertForSequenceClassification,
    "span": BertForQuestionAnswering,
}
# The head -> its outputs there, by a name here; those of tokens come first.
OUTPUTS = {
    "pretraining": {"logits": "prediction_logits", "next_sentence": "seq_relationship_logits"},
    "model": {"features": "last_hidden_state", "pooled": "pooler_output"},
    "classification": {"logits": "logits"},
    "span": {"start": "start_logits", "end": "end_logits"},
}
OF_TOKENS = ("features", "start", "end")
LENGTHS = (7, 5, 4)


def make(name: str) -> dict[str, np.ndarray]:
    """The contents of one golden file."""
    rng = np.random.default_rng(list(MODELS).index(name))
    config = BertConfig(**SHARED, num_labels=3 if name == "classification" else 2)
    config._attn_implementation = "eager"
    model = MODELS[name](config)
    weights = {}
    for key, value in model.named_parameters():  # once each: the output layer is the embedding
        noise = rng.standard_normal(tuple(value.shape))
        if value.ndim > 1:
            weight = noise if "embeddings" in key else noise / np.sqrt(value.shape[1])
        else:
            weight = 0.2 * noise + (1.0 if key.endswith("LayerNorm.weight") else 0.0)
        weights[key] = weight.astype(np.float32)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
    model = model.double().eval()
    mask = (np.arange(7) < np.array(LENGTHS)[:, None]).astype(np.int64)
    # The table there gives no gradient to row 0, its padding.
    tokens = rng.integers(1, SHARED["vocab_size"], (3, 7))
    types = (np.arange(7) >= 3).astype(np.int64)[None].repeat(3, 0)
    inputs = {"input_ids": tokens, "token_type_ids": types, "attention_mask": mask}
    found = model(**{k: torch.from_numpy(v) for k, v in inputs.items()})
    outputs = {ours: found[theirs] for ours, theirs in OUTPUTS[name].items()}
    directions = {}
    for key, value in outputs.items():
        direction = rng.standard_normal(tuple(value.shape)).astype(np.float32)
        of_tokens = key in OF_TOKENS or (name == "pretraining" and key == "logits")
        directions[key] = (
            direction * mask.reshape(3, 7, *[1] * (value.ndim - 2)).astype(np.float32) if of_tokens else direction
        )
    sum((torch.cos(x) * torch.from_numpy(directions[k])).sum() for k, x in outputs.items()).backward()
    kept = {k: getattr(config, k) for k in (*SHARED, "hidden_act", "layer_norm_eps", "type_vocab_size")}
    return {
        "config": np.array(json.dumps(kept | {"model_type": "bert", "architectures": [MODELS[name].__name__]})),
        "tokens": tokens.astype(np.int32),
        "types": types.astype(np.int32),
        "mask": mask.astype(np.int32),
        **{f"direction/{k}": v for k, v in directions.items()},
        **{f"output/{k}": plain(v) for k, v in outputs.items()},
        **{f"weight/{k}": v for k, v in weights.items()},
        **{f"gradient/{k}": plain(p.grad) for k, p in model.named_parameters() if p.grad is not None},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "tests" / "golden")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        np.savez_compressed(out / f"bert_hf_{name}.npz", **make(name))


if __name__ == "__main__":
    main()
