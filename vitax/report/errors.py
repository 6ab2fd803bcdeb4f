"""What a classifier gets wrong: per class, by confusion, by confidence."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitax.data.pipeline import Pipeline
from vitax.report import page
from vitax.report.page import Section

# Beyond so many classes names and numbers no longer fit a matrix.
_FEW = 25
_BINS = 15


@dataclasses.dataclass(frozen=True)
class Predicted:
    """Predictions on one evaluation set.

    Attributes:
      name: of the evaluator.
      names: of the classes.
      labels: int [n].
      best: int [n], the class predicted.
      confidence: float [n], its probability.
      right: float [n], the probability of the true class.
      index: int [n], which example of the set.
      pipeline: to fetch images again.
    """

    name: str
    names: Sequence[str]
    labels: np.ndarray
    best: np.ndarray
    confidence: np.ndarray
    right: np.ndarray
    index: np.ndarray
    pipeline: Pipeline

    @property
    def correct(self) -> np.ndarray:
        return self.labels == self.best

    def matrix(self) -> np.ndarray:
        """int [classes, classes]: true by predicted."""
        found = np.zeros((len(self.names),) * 2, np.int64)
        np.add.at(found, (self.labels, self.best), 1)
        return found


def collect(name: str, names: Sequence[str], pipeline: Pipeline, batches: Any) -> Predicted:
    """Reads (probabilities [n, classes], host batch) pairs to their end, keeping a few numbers an example."""
    kept: list[tuple[np.ndarray, ...]] = []
    for probabilities, batch in batches:
        rows = np.arange(len(probabilities))
        best = probabilities.argmax(-1)
        kept.append(
            (batch["label"], best, probabilities[rows, best], probabilities[rows, batch["label"]], batch["index"])
        )
    labels, best, confidence, right, index = (np.concatenate(column) for column in zip(*kept))
    return Predicted(name, names, labels, best, confidence, right, index, pipeline)


def calibration(
    confidence: np.ndarray, correct: np.ndarray, bins: int = _BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Reliability of probabilities, in bins of equal width.

    Args:
      confidence: float [n], probability of the predicted class.
      correct: bool [n].
      bins: how many between 0 and 1.

    Returns:
      (mean confidence [bins], accuracy [bins], share of examples [bins], expected
      calibration error); empty bins hold NaN and share 0.

    Reference: Guo et al., arXiv:1706.04599, equation 3.
    """
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        said = np.bincount(which, confidence, bins) / counts
        was = np.bincount(which, correct.astype(float), bins) / counts
    share = counts / max(len(confidence), 1)
    full = counts > 0
    return said, was, share, float((share[full] * np.abs(said - was)[full]).sum())


def sections(found: Predicted, step: int, figures: Path) -> Iterator[Section]:
    """Confusions, classes, confident errors, reliability."""
    matrix, name = found.matrix(), found.name
    right = int(np.trace(matrix))
    text = f"<p>{right} of {matrix.sum()} right ({right / max(matrix.sum(), 1):.2%}), step {step}.</p>"
    drawn = page.figure(_confusion(matrix, found.names), figures / f"confusion_{name}.png", "Confusion matrix")
    yield f"Confusion matrix: {name}", text + drawn + _commonest(found, matrix, figures)
    drawn = _per_class(matrix, found.names)
    yield f"Accuracy by class: {name}", page.figure(drawn, figures / f"classes_{name}.png", "Accuracy of each class")
    wrong = np.flatnonzero(~found.correct)
    if len(wrong):
        yield f"Most confident errors: {name}", _confident(found, wrong, figures)
    said, was, share, error = calibration(found.confidence, found.correct)
    drawn = page.figure(_reliability(said, was, share), figures / f"reliability_{name}.png", "Reliability diagram")
    text = (
        f"<p>Expected calibration error {error:.2%} ({_BINS} bins): how far stated probabilities are from accuracy.</p>"
    )
    yield f"Reliability: {name}", text + drawn


def _confusion(matrix: np.ndarray, names: Sequence[str]) -> Any:
    from matplotlib.colors import LogNorm

    few = len(names) <= _FEW
    drawn = page.new_figure(7 if few else 9, 6 if few else 8)
    axis = drawn.subplots()
    shown = axis.imshow(np.maximum(matrix, 0.5), cmap="Blues", norm=LogNorm(0.5, max(matrix.max(), 1)))
    axis.set(xlabel="predicted", ylabel="true")
    if not few:
        drawn.colorbar(shown)
        return drawn
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    for (i, j), n in np.ndenumerate(matrix):
        if n:
            dark = np.log(n + 0.5) > 0.6 * np.log(matrix.max() + 0.5)
            axis.text(j, i, str(n), ha="center", va="center", fontsize=7, color="w" if dark else "k")
    return drawn


def _commonest(found: Predicted, matrix: np.ndarray, figures: Path, pairs: int = 5, each: int = 6) -> str:
    """The commonest confusions, with the images that were most surely taken for the other class."""
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    order = [divmod(int(k), len(off)) for k in np.argsort(-off, axis=None, kind="stable")[:pairs]]
    order = [(i, j) for i, j in order if off[i, j]]
    if not order:
        return ""
    drawn = page.new_figure(10, 1.35 * len(order))
    grid = drawn.subplots(len(order), each + 1, squeeze=False)
    for line, (i, j) in zip(grid, order):
        which = np.flatnonzero((found.labels == i) & (found.best == j))
        which = which[np.argsort(-found.confidence[which], kind="stable")][:each]
        page.gallery(line[1:], found.pipeline.images(found.index[which]), [f"{found.confidence[k]:.0%}" for k in which])
        line[0].axis("off")
        text = f"{found.names[i]}\ntaken for\n{found.names[j]}\n{off[i, j]} of {matrix[i].sum()}"
        line[0].text(0.0, 0.5, text, transform=line[0].transAxes, va="center", fontsize=8)
    return page.figure(drawn, figures / f"confusions_{found.name}.png", "Images of the commonest confusions")


def _per_class(matrix: np.ndarray, names: Sequence[str]) -> Any:
    total = matrix.sum(1)
    accuracy = np.where(total, np.diag(matrix) / np.maximum(total, 1), np.nan)
    order = np.argsort(accuracy, kind="stable")
    if len(names) > 2 * _FEW:  # the worst and the best tell most
        order = np.concatenate([order[:_FEW], order[-_FEW:]])
    drawn = page.new_figure(8, 0.5 + 0.22 * len(order))
    axis = drawn.subplots()
    axis.barh([names[i] for i in order], accuracy[order], color="#4c78a8")
    axis.set(xlabel="accuracy", xlim=(0, 1))
    axis.tick_params(labelsize=8)
    axis.grid(axis="x", alpha=0.3)
    for y, i in enumerate(order):
        inside = accuracy[i] > 0.3
        at, color = (0.01, "w") if inside else (np.nan_to_num(accuracy[i]) + 0.01, "k")
        axis.text(at, y, f"{accuracy[i]:.0%} of {total[i]}", va="center", fontsize=7, color=color)
    return drawn


def _confident(found: Predicted, wrong: np.ndarray, figures: Path, shown: int = 16) -> str:
    which = wrong[np.argsort(-found.confidence[wrong], kind="stable")][:shown]
    columns = 8
    drawn = page.new_figure(11, 1.75 * -(-len(which) // columns))
    said = [f"{found.names[found.best[k]]} {found.confidence[k]:.0%}" for k in which]
    titles = [f"{s}\nis {found.names[found.labels[k]]} {found.right[k]:.0%}" for s, k in zip(said, which)]
    grid = drawn.subplots(-(-len(which) // columns), columns, squeeze=False)
    page.gallery(grid, found.pipeline.images(found.index[which]), titles)
    note = "Wrong labels and ambiguous images tend to end up here."
    return page.figure(drawn, figures / f"errors_{found.name}.png", "The most confident errors", note)


def _reliability(said: np.ndarray, was: np.ndarray, share: np.ndarray) -> Any:
    drawn = page.new_figure(8, 3.2)
    left, right = drawn.subplots(1, 2)
    edges = (np.arange(len(said)) + 0.5) / len(said)
    left.plot([0, 1], [0, 1], color="0.6", linestyle=":")
    left.bar(edges, np.nan_to_num(was), width=1 / len(said), color="#4c78a8", edgecolor="white")
    left.plot(said, was, "o", color="#e45756", markersize=3)
    left.set(xlabel="stated probability", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    right.bar(edges, share, width=1 / len(said), color="#72b7b2", edgecolor="white")
    right.set(xlabel="stated probability", ylabel="share of examples", xlim=(0, 1))
    return drawn
