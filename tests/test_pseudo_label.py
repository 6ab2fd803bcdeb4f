"""A teacher, its labels and a student, through the command line."""

import json

import numpy as np
import pytest

from vitax import infer, pseudo_label, recipe
from vitax.__main__ import main
from vitax.core.errors import UserError
from vitax.data import pseudo_labels

SMALL = [
    "--config.model.width=32", "--config.model.depth=1", "--config.model.mlp_dim=32", "--config.duration.epochs=1",
    "--config.evaluators.val.data.source.limit=100", "--config.evaluators.val.data.num_examples=100",
]  # fmt: skip
FEW = "--config.data.source.sources.pseudo.source.split=train[9500:]"


def test_teacher_labels_student(tmp_path, capsys):
    taught, labels = tmp_path / "teacher", tmp_path / "labels"
    limit = ["--config.data.source.limit=640", "--config.data.num_examples=640", "--config.duration.epochs=12"]
    name = "noisy_student_fashion"
    assert main(["train", "--config", f"{name}:teacher", "--workdir", str(taught), *SMALL, *limit]) == 0
    capsys.readouterr()
    student = ["--config", f"{name}:student", FEW, f"--config.data.source.sources.pseudo.labels={labels}", *SMALL]
    student += ["--config.data.source.repeats.labelled=1"]
    write = ["pseudo-label", "--checkpoint", str(taught), "--json", *student]
    assert main(write) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["images"], row["kept"], row["distinct"], row["num_examples"]) == (500, 500, 500, 2500)
    assert row["agreement"] > 0.3  # of 0.1 by chance
    # The labels are what the teacher says of these very images.
    written = pseudo_labels.load(labels)
    loaded = infer.load(str(taught))
    spec = {"kind": "embedded", "name": "fashion_mnist", "split": "train[9500:]"}
    images = loaded[0].data.open(spec, "here")
    batch = {"image": images.gather(np.arange(16))["image"], "label": np.zeros(16, np.int32)}
    objective = loaded[1].objective
    logits = objective.forward({"params": loaded[2].params}, {"image": objective.scale(batch["image"])}).logits
    np.testing.assert_array_equal(written.label[:16], np.asarray(logits).argmax(-1))
    # Labels are never overwritten, and a wrong count is refused with the right one.
    assert main(write) == 2
    assert "never overwritten" in capsys.readouterr().err
    run = ["train", "--workdir", str(tmp_path / "student"), *student]
    assert main(run) == 2
    assert "Set --config.data.num_examples=2500" in capsys.readouterr().err
    assert main([*run, "--config.data.num_examples=2500"]) == 0


def test_a_recipe_without_pseudo_labels_is_refused(tiny):
    with pytest.raises(UserError, match="no source of kind pseudo_labelled"):
        pseudo_label.write("nowhere", recipe.build(tiny()))
