"""Teacher against student on Fashion-MNIST with few labels: the gain of Noisy Student over seeds.

    python benchmarks/noisy_student.py [--data DIR] [--seeds 3] [--alone] [--workdir DIR] [--config.PATH=VALUE ...]

Each seed trains a teacher on the labels, writes its soft pseudo-labels of the unlabelled
images, and trains a student on both. `--alone` adds the student's network and noise on the
labels alone, for as many steps. Overrides hold for all of them. `--data` is a folder with
Fashion-MNIST's four IDX files; without it the small embedded set serves.
"""

import argparse
import statistics
import sys
from pathlib import Path

from vitax import pseudo_label, recipe, run
from vitax.core.errors import EXIT_DONE
from vitax.train.workdir import read_rows

NAME = "noisy_student_fashion"


def train(variant: str, folder: Path, overrides: list[str]) -> float:
    """Accuracy on the test set at the end of a run."""
    code = run.train(recipe.load(f"{NAME}:{variant}", overrides), folder)
    if code != EXIT_DONE:
        raise SystemExit(code)
    return [row["val/accuracy"] for row in read_rows(folder / "metrics.jsonl") if "val/accuracy" in row][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--workdir", type=Path, default=Path("runs/noisy"))
    args, overrides = parser.parse_known_args()
    data = f",data={args.data}" if args.data else ""
    rows = []
    for seed in range(args.seeds):
        own = [*overrides, f"--config.seed={seed}"]
        folder = args.workdir / str(seed)
        teacher = train(f"teacher{data}", folder / "teacher", own)
        labels = f"--config.data.source.sources.pseudo.labels={folder / 'labels'}"
        student = recipe.load(f"{NAME}:student{data}", [*own, labels])
        if not (folder / "labels").exists():
            pseudo_label.write(str(folder / "teacher"), student)
        taught = train(f"student{data}", folder / "student", [*own, labels])
        row = {"teacher": teacher, "student": taught}
        if args.alone:
            row["student's network, labels alone"] = train(f"scratch{data}", folder / "scratch", own)
        rows.append(row)
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in row.items()), file=sys.stderr)
    print(f"{'':<34}{'mean':>8}  seeds")
    for name in rows[0]:
        values = [row[name] for row in rows]
        each = " ".join(f"{100 * v:.2f}" for v in values)
        print(f"{name:<34}{100 * statistics.mean(values):>7.2f}%  {each}")
    gains = [100 * (row["student"] - row["teacher"]) for row in rows]
    print(f"student minus teacher {statistics.mean(gains):+.2f} points ({' '.join(f'{g:+.2f}' for g in gains)})")


if __name__ == "__main__":
    main()
