"""Pre-trained against from scratch: whether two verses are the same, over seeds.

    python benchmarks/bert_paraphrase.py [--data DIR] [--seeds 3] [--workdir DIR] [--pretrain.PATH=VALUE ...]
        [--config.PATH=VALUE ...]

Pre-trains a small BERT once on chapters of the World English Bible, and for each seed
fine-tunes it on pairs of verses and trains the same model on them from scratch. Beside
them stands what the share of common words alone tells. `--data` is a folder with whole
Bibles (`en_web.txt.gz`, `en_kjv.txt.gz`); without it the embedded verses serve. Overrides
that begin with `--pretrain.` hold for the pre-training, those with `--config.` for the others.
"""

import argparse
import statistics
import sys
from pathlib import Path

import numpy as np

from vitax import recipe, run
from vitax.core.errors import EXIT_DONE
from vitax.data.labelled_text import shared, words_of
from vitax.recipe import Recipe
from vitax.train.workdir import read_rows

NAME = "bert_bible"


def train(built: Recipe, folder: Path) -> dict[str, float]:
    """The last evaluation of a run."""
    code = run.train(built, folder)
    if code != EXIT_DONE:
        raise SystemExit(code)
    return [row for row in read_rows(folder / "metrics.jsonl") if "val/accuracy" in row][-1]


def by_common_words(built: Recipe) -> float:
    """Accuracy of one threshold on the share of common words, the best on the pairs to train on."""
    shares, labels = {}, {}
    for where, source in built.sources.items():
        pairs = ([words_of(text.decode()) for text in source.texts(i)] for i in range(len(source)))  # type: ignore[attr-defined]
        shares[where], labels[where] = np.array([shared(*p) for p in pairs]), source.labels  # type: ignore[attr-defined]
    grid = np.linspace(0, 1, 201)
    right = [((shares["data"] > t) == labels["data"]).mean() for t in grid]
    held_out = "evaluators.val.data"
    return float(((shares[held_out] > grid[int(np.argmax(right))]) == labels[held_out]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workdir", type=Path, default=Path("runs/paraphrase"))
    args, rest = parser.parse_known_args()
    overrides = [r for r in rest if not r.startswith("--pretrain.")]
    pretraining = [r.replace("--pretrain.", "--config.", 1) for r in rest if r.startswith("--pretrain.")]
    data = f",data={args.data}" if args.data else ""
    measured = train(recipe.load(f"{NAME}:pretrain{data}", pretraining), args.workdir / "pretrain")
    names = ("val/masked_loss", "val/accuracy", "val/next_sentence_accuracy")
    print("pre-training: " + ", ".join(f"{name} {measured[name]:.4f}" for name in names), file=sys.stderr)
    start = f"--config.init_from.checkpoint={args.workdir / 'pretrain'}"
    rows = []
    for seed in range(args.seeds):
        own = [*overrides, f"--config.seed={seed}"]
        folder = args.workdir / str(seed)
        tuned = train(recipe.load(f"{NAME}:finetune{data}", [*own, start]), folder / "finetune")
        scratch = train(recipe.load(f"{NAME}:scratch{data}", own), folder / "scratch")
        rows.append({"pre-trained, fine-tuned": tuned["val/accuracy"], "from scratch": scratch["val/accuracy"]})
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in rows[-1].items()), file=sys.stderr)
    print(f"{'':<34}{'mean':>8}  seeds")
    for name in rows[0]:
        values = [row[name] for row in rows]
        each = " ".join(f"{100 * v:.2f}" for v in values)
        print(f"{name:<34}{100 * statistics.mean(values):>7.2f}%  {each}")
    words = by_common_words(recipe.load(f"{NAME}:scratch{data}", overrides))
    print(f"{'share of common words alone':<34}{100 * words:>7.2f}%")
    gains = [100 * (row["pre-trained, fine-tuned"] - row["from scratch"]) for row in rows]
    print(f"gain {statistics.mean(gains):+.2f} points ({' '.join(f'{g:+.2f}' for g in gains)})")


if __name__ == "__main__":
    main()
