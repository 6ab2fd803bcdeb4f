"""Parity of text models at real sizes, in both directions, through the files that transformers writes.

    TORCH_PYTHON scripts/check_text_sizes.py make DIR     # with scripts/requirements-parity.txt
    VITAX_PYTHON -m scripts.check_text_sizes here DIR     # reads them, and writes them back with vitax convert
    TORCH_PYTHON scripts/check_text_sizes.py there DIR    # reads what was written back, strictly

Random float32 weights (``seeded_weights``), 2 sequences of 128 tokens; torch computes in
float64. ``here`` and ``there`` print max|diff| / max|ref| of the outputs, and exit with 1
above 1e-5.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 1e-5
SHAPE = (2, 128)
# name -> class of transformers, its configuration, and its settings
MODELS: dict[str, tuple[str, str, dict[str, int]]] = {
    "gpt2_small": ("GPT2LMHeadModel", "GPT2Config", {}),
    "bert_base": ("BertForPreTraining", "BertConfig", {}),
    "bert_large_span": (
        "BertForQuestionAnswering",
        "BertConfig",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    ),
}
# Outputs there -> here.
OUTPUTS = {
    "gpt2_small": {"logits": "logits"},
    "bert_base": {"prediction_logits": "logits", "seq_relationship_logits": "next_sentence"},
    "bert_large_span": {"start_logits": "start", "end_logits": "end"},
}


def _tokens(uniform: Any, name: str) -> np.ndarray:
    return (np.abs(uniform(f"tokens of {name}", SHAPE)) / 1.8 * 30_000).astype(np.int64)


def make(folder: Path) -> None:
    """Writes a folder a model, as transformers does, and the outputs."""
    import seeded_weights
    import transformers

    for name, (kind, config, settings) in MODELS.items():
        path = folder / name / "model.safetensors"
        getattr(transformers, kind)(getattr(transformers, config)(**settings)).save_pretrained(path.parent)
        seeded_weights.write(path, seeded_weights.fill(seeded_weights.header(path)))
        np.savez(path.parent / "outputs.npz", **_theirs(name, path.parent))


def _theirs(name: str, folder: Path) -> dict[str, np.ndarray]:
    """What transformers gives with the weights of a folder, every array of them."""
    import seeded_weights
    import torch
    import transformers

    model, said = getattr(transformers, MODELS[name][0]).from_pretrained(folder, output_loading_info=True)
    assert not any(said.values()), said
    with torch.no_grad():
        found = model.double().eval()(input_ids=torch.from_numpy(_tokens(seeded_weights.uniform, name)))
    return {ours: found[theirs].float().numpy() for theirs, ours in OUTPUTS[name].items()}


def _compare(name: str, way: str, have: dict[str, Any], folder: Path) -> float:
    with np.load(folder / name / "outputs.npz") as file:
        want = dict(file)
    errors = {k: float(np.abs(np.asarray(have[k]) - want[k]).max() / np.abs(want[k]).max()) for k in want}
    print(f"{name:<16} {way:<6} " + "  ".join(f"{key} {error:.1e}" for key, error in errors.items()), flush=True)
    return max(errors.values())


def here(folder: Path) -> float:
    """Each file through vitax, and back."""
    import jax

    from scripts import seeded_weights
    from vitax.weights import pretrained, reading, writing

    worst = 0.0
    for name in MODELS:
        found = reading.load(str(folder / name)).whole()
        asked = pretrained.Asked(name, found.recipe["model"], {}, None, None, 0)
        model, variables = pretrained.load(str(folder / name), asked)
        out = jax.jit(model.apply)(variables, _tokens(seeded_weights.uniform, name))
        have = {"logits": out.logits, **out.intermediates}
        have |= {"start": out.logits[..., 0], "end": out.logits[..., -1]}
        worst = max(worst, _compare(name, "here", have, folder))
        writing.run(str(folder / name), folder / name / "back", "hf")
    return worst


def there(folder: Path) -> float:
    """What was written back, through transformers."""
    return max(_compare(name, "there", _theirs(name, folder / name / "back"), folder) for name in MODELS)


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
