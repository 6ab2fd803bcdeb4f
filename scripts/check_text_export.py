"""Loads what ``vitax convert --to hf`` wrote of a GPT or BERT into transformers, strictly, and compares outputs.

    python scripts/check_text_export.py FOLDER GOLDEN.npz [FOLDER GOLDEN.npz ...]

GOLDEN.npz is a file of make_gpt_golden.py or make_bert_golden.py, whose weights FOLDER
holds. Needs scripts/requirements-parity.txt. Prints max|diff| / max|ref| of each output
and exits with 1 above 1e-5.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from make_bert_golden import OUTPUTS

TOLERANCE = 1e-5


def check(folder: Path, want: dict[str, np.ndarray]) -> dict[str, float]:
    """Relative errors of all outputs."""
    config = json.loads((folder / "config.json").read_text())
    kind: Any = getattr(transformers, config["architectures"][0])
    model, found = kind.from_pretrained(folder, output_loading_info=True)
    problems = {k: v for k, v in found.items() if v}
    assert not problems, problems
    inputs = {"input_ids": want["tokens"]}
    if "mask" in want:
        inputs |= {"token_type_ids": want["types"], "attention_mask": want["mask"]}
    with torch.no_grad():
        given = model.double().eval()(**{k: torch.from_numpy(x.astype(np.int64)) for k, x in inputs.items()})
    if "logits" in want:
        return {"logits": _error(given.logits, want["logits"])}
    (names,) = [x for x in OUTPUTS.values() if {f"output/{k}" for k in x} <= want.keys()][:1]
    return {ours: _error(given[theirs], want[f"output/{ours}"]) for ours, theirs in names.items()}


def _error(have: torch.Tensor, want: np.ndarray) -> float:
    return float(np.abs(have.numpy() - want).max() / np.abs(want).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="FOLDER GOLDEN")
    words = parser.parse_args().pairs
    if len(words) % 2:
        parser.error(f"{len(words)} words: expected a FOLDER with a GOLDEN.npz each")
    worst = 0.0
    for folder, golden in zip(words[::2], words[1::2], strict=True):
        with np.load(golden) as file:
            errors = check(Path(folder), dict(file))
        print(folder, {name: f"{e:.1e}" for name, e in errors.items()})
        worst = max([worst, *errors.values()])
    raise SystemExit(int(worst > TOLERANCE))


if __name__ == "__main__":
    main()
