"""Names, splits and sizes of the data sets to fine-tune on."""

import importlib.resources
import re

import pytest

from vitax.data.transfer_tasks import TASKS, VTAB, Part, held_out, joined


def bounds(part, whole):
    """Split name, first example and one past the last of a part."""
    name, start, stop = re.fullmatch(r"(\w+)(?:\[(\d*%?):(\d*)\])?", part.split).groups()
    first = whole * int(start[:-1]) // 100 if (start or "").endswith("%") else int(start or 0)
    return name, first, int(stop or whole)


# Examples in the splits that VTAB cuts a test set from.
WHOLE = {"eurosat": 27_000, "resisc45": 31_500, "smallnorb_azimuth": 24_300, "smallnorb_elevation": 24_300}


@pytest.mark.parametrize("name", VTAB)
def test_vtab_trains_on_a_thousand_images_that_it_does_not_test_on(name):
    task = VTAB[name]
    assert [part.num_examples for part in task.train] == [800, 200]
    parts = [(bounds(part, WHOLE.get(name, part.num_examples)), part) for part in (*task.train, task.test)]
    for (_, first, stop), part in parts:
        assert stop - first == part.num_examples
    for i, ((split, first, stop), _) in enumerate(parts):
        for (other, other_first, other_stop), _ in parts[:i]:
            assert split != other or first >= other_stop or stop <= other_first


def test_holding_out_takes_the_end_of_every_part():
    kept, out = held_out(TASKS["oxford_flowers102"], 0.1)
    assert joined(kept) == Part("train[:918]+validation[:918]", 1836)
    assert joined(out) == Part("train[918:]+validation[918:]", 204)
    assert joined(TASKS["oxford_flowers102"].train) == Part("train+validation", 2040)


@pytest.mark.parametrize(
    ("task", "file"),
    [("caltech101", "caltech101_labels.txt"), ("sun397", "sun397_labels.txt"), ("dtd", "dtd_key_attributes.txt")],
)
def test_numbers_of_classes_are_those_of_tfds(task, file):
    names = importlib.resources.files("tensorflow_datasets") / "image_classification" / file
    assert len(names.read_text().split()) == VTAB[task].num_classes
