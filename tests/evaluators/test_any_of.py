"""ReaL accuracy: any right label counts, examples without one do not, on any tail and mesh."""

import numpy as np
import pytest

from tests.evaluators.test_classification import setup
from vitax.core.errors import UserError
from vitax.evaluators.any_of import AnyOfEvaluator
from vitax.evaluators.classification import predictions
from vitax.parallel.mesh import MeshSpec


class Several:
    """A source whose examples have none, one or two right labels."""

    def __init__(self, source):
        self.source = source

    def __getattr__(self, name):
        return getattr(self.source, name)

    def __len__(self):
        return len(self.source)

    def right(self, index, label):
        return [[], [label], [label, (label + 1) % 4]][index % 3]

    def targets(self, indices, labels, num_classes):
        rows = np.zeros((len(indices), num_classes), np.float32)
        for row, index, label in zip(rows, indices, labels):
            row[self.right(int(index), int(label))] = 1
        return rows


@pytest.mark.parametrize(
    ("devices", "mesh", "batch_size"), [(1, MeshSpec(), 7), (8, MeshSpec(data=2, fsdp=2, tensor=2), 8)]
)
def test_by_hand(devices, mesh, batch_size):
    built, state, program = setup(devices, mesh, batch_size)
    pipeline = built.evaluators()[0][0].pipeline
    pipeline.source, pipeline.soft_labels = Several(pipeline.source), True
    pipeline._whole_batches = True
    hits = []
    for probabilities, batch in predictions(program, state, pipeline):
        for guess, index, label in zip(probabilities.argmax(-1), batch["index"], batch["label"]):
            if right := pipeline.source.right(int(index), int(label)):
                hits.append(guess in right)
    got = AnyOfEvaluator("real", pipeline).build(program)(state)
    assert len(hits) == 14  # of 21
    assert got == {"accuracy": pytest.approx(np.mean(hits), abs=1e-6)}


def test_it_needs_all_labels():
    pipeline = setup(1, MeshSpec())[0].evaluators()[0][0].pipeline
    with pytest.raises(UserError, match=r"evaluators\.real\.data\.soft_labels=true"):
        AnyOfEvaluator("real", pipeline)
