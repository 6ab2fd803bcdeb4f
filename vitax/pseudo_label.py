"""``vitax pseudo-label``: a teacher labels the images that a student's recipe names.

Every part of the recipe's ``data.source`` of kind ``pseudo_labelled`` names images
(``source``) and a folder (``labels``). The teacher sees the images as it is evaluated: no
augmentation, no dropout, averaged parameters where it has them. All its probabilities are
written; which images to keep is the recipe's to say (``min_confidence``, ``per_class``).

Reference: Xie et al., "Self-training with Noisy Student", arXiv:1911.04252, algorithm 1.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from vitax import infer
from vitax.checkpoint import digest
from vitax.core.errors import UserError
from vitax.data import pseudo_labels
from vitax.evaluators.classification import predictions
from vitax.recipe import Recipe
from vitax.specs.images import DataSpec
from vitax.specs.kinds import evaluator_data


def write(checkpoint: str, student: Recipe) -> list[dict[str, Any]]:
    """Writes the labels that a recipe asks for.

    Args:
      checkpoint: the teacher, ``DIR`` or ``DIR@STEP``.
      student: the recipe with ``pseudo_labelled`` sources.

    Returns:
      One row a folder: ``labels`` (the folder), ``images``, ``confidence`` (mean), ``kept``
      and ``distinct`` (images of the recipe's choice, with and without repeats),
      ``classes`` (that have any), ``agreement`` (share of the distinct ones whose own label
      is the teacher's; None where the source has no labels), ``num_examples`` (of the whole
      recipe: what ``data.num_examples`` has to state).

    Raises:
      UserError: nothing to label, a folder that exists, classes that do not fit.
    """
    found = dict(_parts(student.config["data"]["source"], "data.source"))
    if not found:
        raise UserError(
            "pseudo-label: the recipe has no source of kind pseudo_labelled in data.source: there is nothing to "
            "label. `vitax recipes 'noisy_student*'` lists recipes that have."
        )
    for spec in found.values():
        pseudo_labels.check_free(pathlib.Path(spec["labels"]).expanduser())
    teacher, program, state, metadata = infer.load(checkpoint)
    if jax.process_count() > 1:
        raise UserError("pseudo-label: runs in one process, on all devices of its host.")
    if teacher.data.num_classes != student.data.num_classes:
        raise UserError(
            f"pseudo-label: the teacher has {teacher.data.num_classes} classes, the recipe {student.data.num_classes}."
        )
    about = {
        "class_names": metadata.get("class_names"),
        "num_classes": teacher.data.num_classes,
        "teacher": _identity(state.params),
    }
    own: dict[str, np.ndarray] = {}
    for where, spec in found.items():
        images = student.data.open(spec["source"], f"{where}.source")
        pipeline = _as_evaluated(teacher).pipeline(teacher.seed, where, images)
        truth: list[np.ndarray] = []
        batches = _noting(predictions(program, state, pipeline), truth)
        pseudo_labels.save(spec["labels"], batches, len(images), about | {"source": images.fingerprint()})
        if images.class_names:
            own[where] = np.concatenate(truth)
    total = len(student.data.open(student.data.source, "data.source"))
    return [_row(spec, own.get(where), total) for where, spec in found.items()]


def _parts(spec: Mapping[str, Any], where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(dotted path, spec) of every source of pseudo-labels in a source."""
    if spec.get("kind") == "pseudo_labelled":
        yield where, spec
    for name, inner in (spec.get("sources") or {}).items():
        yield from _parts(inner, f"{where}.sources.{name}")


def _noting(answers: Iterator[tuple[np.ndarray, Any]], truth: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Probabilities alone; appends the labels beside them to ``truth``."""
    for probabilities, batch in answers:
        truth.append(batch["label"])
        yield probabilities


def _as_evaluated(teacher: Recipe) -> DataSpec:
    evaluators = teacher.config.get("evaluators")
    return evaluator_data(teacher.config, next(iter(evaluators))) if evaluators else teacher.data


def _identity(params: Any) -> str:
    """A short digest of a model's parameters, whatever the devices."""
    text = json.dumps(digest.manifest(params), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _row(spec: Mapping[str, Any], truth: np.ndarray | None, total: int) -> dict[str, Any]:
    written = pseudo_labels.load(spec["labels"])
    options = spec.get("min_confidence") or 0.0, spec.get("per_class")
    chosen = pseudo_labels.choose(written.label, written.confidence, *options)
    distinct = np.unique(chosen)
    label = written.label[distinct]
    return {
        "labels": str(spec["labels"]),
        "images": len(written.label),
        "confidence": float(written.confidence.mean()),
        "kept": len(chosen),
        "distinct": len(distinct),
        "classes": len(np.unique(label)),
        "agreement": float((label == truth[distinct]).mean()) if truth is not None and len(distinct) else None,
        "num_examples": total,
    }


def lines(rows: list[dict[str, Any]], stated: int) -> list[str]:
    """Rows for a person; says what to change where the recipe states another number of examples."""
    out = []
    for row in rows:
        right = "" if row["agreement"] is None else f", {row['agreement']:.1%} of these labelled as in the source"
        out.append(
            f"{row['labels']}: {row['images']:,} images, mean confidence {row['confidence']:.3f}; kept {row['kept']:,} "
            f"({row['distinct']:,} distinct, {row['classes']} classes{right})"
        )
    if rows[0]["num_examples"] != stated:
        out.append(
            f"The recipe states {stated:,} examples; train it with --config.data.num_examples={rows[0]['num_examples']}"
        )
    return out
