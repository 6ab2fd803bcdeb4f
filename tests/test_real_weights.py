"""Real trained weights: what vitax computes against the programs that they were published for.

``python scripts/real_weights.py FOLDER`` brings them, VITAX_WEIGHTS=FOLDER shows them to
these tests; the outputs come from scripts/make_real_golden.py.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from scripts.make_real_golden import EMBEDDED, OUT, SENTENCES, images
from tests.published import TOLERANCE, error, nested
from vitax.__main__ import main
from vitax.construct import construct
from vitax.layers.embed import resample_positions
from vitax.models.table import MODELS
from vitax.weights import reading

pytestmark = pytest.mark.slow


def weights(name):
    folder = os.environ.get("VITAX_WEIGHTS")
    path = Path(folder or ".") / name
    path = path if path.is_dir() else path.with_suffix(".safetensors")
    if not folder or not path.exists():
        pytest.skip(f"VITAX_WEIGHTS has no {name}: python scripts/real_weights.py FOLDER, VITAX_WEIGHTS=FOLDER")
    return path


def golden(name):
    with np.load(EMBEDDED) as file:
        x = images(file["train_images"][:4, ..., None])
    with np.load(OUT / f"{name}.npz") as file:
        return x, dict(file)


def test_vit_s_14_embeds_as_in_its_graph():
    x, want = golden("vit_s_focus")
    found = reading.load(f"{weights('vit_s_focus')}:backbone").whole()
    assert found.image_size == (518, 518)
    assert found.positions == "bicubic"
    patches = resample_positions(found.params["pos_embedding"], found.grid, (16, 16), "bicubic")
    model = construct(MODELS, found.recipe["model"], "model")
    have = model.apply({"params": nested({**found.params, "pos_embedding": patches})}, x, return_intermediates=True)
    assert error(have.features, want["features"]) <= TOLERANCE
    assert error(have.intermediates["patch_tokens"].mean(1), want["patches"]) <= TOLERANCE


def test_efficientnet_lite0_classifies_as_its_program():
    x, want = golden("efficientnet_lite0")
    found = reading.load(str(weights("efficientnet_lite0"))).whole()
    model = found.recipe["model"]
    assert (model["activation"], model["squeeze"], model["num_classes"]) == ("relu6", 0.0, 1000)
    tree = nested(found.params)
    variables = {"batch_stats": tree.pop("batch_stats"), "params": tree}
    have = construct(MODELS, model, "model").apply(variables, x)
    assert error(have.logits, want["logits"]) <= TOLERANCE


def test_minilm_embeds_sentences_as_its_program(tmp_path, capsys):
    path = weights("minilm_l6")
    with np.load(OUT / "minilm_l6.npz") as file:
        want = dict(file)
    out = tmp_path / "features.npz"
    texts = [word for text in SENTENCES for word in ("--text", text)]
    assert main(["predict", "--checkpoint", str(path), "--features", str(out), "--json", *texts]) == 0
    with np.load(out) as file:
        have, named = file["features"], file["texts"]
    assert tuple(named) == SENTENCES
    assert error(have, want["features"]) <= TOLERANCE
    assert (have * want["features"]).sum(1).min() >= 0.9999
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["topk"][0]["text"] == SENTENCES[1]


def test_minilm_is_fine_tuned_on_pairs(tmp_path):
    path, run = weights("minilm_l6"), tmp_path / "run"
    words = ["train", "--config", "bert_bible:finetune", "--workdir", str(run)]
    changes = [f"init_from.checkpoint={path}", f"data.tokenizer.path={path}", "data.vocab_size=30522"]
    changes += ["model.width=384", "model.depth=6", "model.mlp_dim=1536", "model.num_heads=12", "optimizer.lr=1e-4"]
    changes += ["duration={'steps': 40}", "evaluators=None", "log.every.steps=10"]
    assert main([*words, *(f"--config.{c}" for c in changes)]) == 0
    told = json.loads((run / "warm_start.json").read_text())
    assert all(line.startswith("head/") for line in told["reset"])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses[-1] < losses[0]
