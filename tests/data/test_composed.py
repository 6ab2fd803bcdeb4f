"""Sources made of sources: order, repeats, labels of a teacher, and what they say when they cannot."""

import numpy as np
import pytest

from vitax.core.errors import UserError
from vitax.data import pseudo_labels
from vitax.data.composed import Concat, PseudoLabelled, soft_targets
from vitax.data.pipeline import Pipeline
from vitax.data.sources import Embedded, Synthetic, Unlabelled


def synthetic(n, **fields):
    return Synthetic(num_examples=n, num_classes=3, image_size=4, **fields)


@pytest.fixture
def written(tmp_path):
    """Probabilities of 6 images: classes 0 0 1 1 1 2, ever less sure."""
    rows = np.full((6, 3), 0.0, np.float32)
    for i, (label, p) in enumerate(zip([0, 0, 1, 1, 1, 2], [0.95, 0.9, 0.8, 0.7, 0.6, 0.4])):
        rows[i] = (1 - p) / 2
        rows[i, label] = p
    about = {"source": synthetic(6).fingerprint(), "class_names": None, "num_classes": 3, "teacher": "t"}
    about["source"]["image_size"] = 4
    pseudo_labels.save(tmp_path / "labels", iter([rows[:4], rows[4:]]), 6, about)
    return str(tmp_path / "labels")


def test_concat_goes_through_its_parts_in_order_and_repeats_them():
    a, b = synthetic(3), synthetic(2, seed=7)
    both = Concat({"a": a, "b": b}, {"b": 3})
    assert len(both) == 3 + 2 * 3
    expected = [a[0], a[1], a[2], *[b[0], b[1]] * 3]
    for i, example in enumerate(expected):
        np.testing.assert_array_equal(both[i]["image"], example["image"])
    together = both.gather(np.array([8, 0, 4, 2]))
    np.testing.assert_array_equal(together["image"], [expected[i]["image"] for i in (8, 0, 4, 2)])
    np.testing.assert_array_equal(together["label"], [expected[i]["label"] for i in (8, 0, 4, 2)])
    assert both.describe(3) == b.describe(0)


def test_concat_of_files_has_no_gather(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    assert not hasattr(Concat({"a": synthetic(3), "b": Unlabelled(str(tmp_path))}), "gather")
    assert hasattr(Concat({"a": synthetic(3)}), "gather")


def test_concat_refuses_what_does_not_fit():
    with pytest.raises(UserError, match=r"repeats\.c, but the sources are a"):
        Concat({"a": synthetic(1)}, {"c": 2})
    with pytest.raises(UserError, match=r"repeats\.a=0"):
        Concat({"a": synthetic(1)}, {"a": 0})
    with pytest.raises(UserError, match="number their classes differently"):
        _ = Concat({"a": Embedded("digits"), "b": Embedded("fashion_mnist")}).class_names
    with pytest.raises(UserError, match="expected arrays of one shape"):
        Concat({"a": synthetic(1), "b": Synthetic(1, image_size=5)}).gather(np.array([0, 1]))


def test_a_teachers_labels_replace_the_sources_own(written):
    source = PseudoLabelled(synthetic(6), written)
    assert [source[i]["label"] for i in range(6)] == [0, 0, 1, 1, 1, 2]
    np.testing.assert_array_equal(source[4]["image"], synthetic(6)[4]["image"])
    np.testing.assert_array_equal(source.gather(np.array([5, 2]))["label"], [2, 1])


def test_confidence_and_balance(written):
    confident = PseudoLabelled(synthetic(6), written, min_confidence=0.65)
    assert [confident.describe(i) for i in range(len(confident))] == [f"synthetic example {i}" for i in range(4)]
    # Two of each class, the most confident first; class 2 has one image, which comes twice.
    balanced = PseudoLabelled(synthetic(6), written, per_class=2)
    assert [balanced.describe(i)[-1] for i in range(len(balanced))] == ["0", "1", "2", "3", "5", "5"]
    with pytest.raises(UserError, match=r"no label in .* has a confidence of 0.99 .*highest is 0.950"):
        len(PseudoLabelled(synthetic(6), written, min_confidence=0.99))


def test_soft_targets_are_the_teachers_and_one_hot_elsewhere(written):
    both = Concat({"own": synthetic(3), "pseudo": PseudoLabelled(synthetic(6), written)})
    indices = np.array([7, 1])
    target = soft_targets(both, indices, np.array([1, 1]), 3)
    np.testing.assert_allclose(target, [[0.2, 0.6, 0.2], [0, 1, 0]], atol=1e-3)
    np.testing.assert_allclose(target.sum(1), 1, atol=1e-6)
    pipeline = Pipeline(both, [], batch_size=4, num_classes=3, image_size=4, soft_labels=True)
    batch = pipeline.batch(1)
    np.testing.assert_array_equal(batch["target"], soft_targets(both, batch["index"], batch["label"], 3))
    assert pipeline.fingerprint()["soft_labels"] is True


def test_labels_are_tied_to_their_images(written):
    with pytest.raises(UserError, match="are of another source than this recipe's"):
        len(PseudoLabelled(synthetic(6, seed=1), written))
    with pytest.raises(UserError, match="has 3 classes, the recipe 4"):
        soft_targets(PseudoLabelled(synthetic(6), written), np.array([0]), np.array([0]), 4)


def test_labels_are_written_once_and_whole(tmp_path):
    about = {"num_classes": 2, "source": {}, "class_names": None, "teacher": "t"}

    def fails():
        yield np.ones((1, 2), np.float32)
        raise UserError("the disk is full")

    with pytest.raises(UserError, match="disk is full"):
        pseudo_labels.save(tmp_path / "labels", fails(), 2, about)
    assert list(tmp_path.iterdir()) == []
    pseudo_labels.save(tmp_path / "labels", iter([np.ones((2, 2), np.float32)]), 2, about)
    with pytest.raises(UserError, match="never overwritten"):
        pseudo_labels.save(tmp_path / "labels", iter([np.ones((2, 2), np.float32)]), 2, about)
    (tmp_path / "labels" / "label.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match="are damaged"):
        pseudo_labels.load(tmp_path / "labels")
    with pytest.raises(UserError, match="Write them: vitax pseudo-label"):
        pseudo_labels.load(tmp_path / "none")


def test_unlabelled_folders(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        len(Unlabelled(str(tmp_path / "none")))
    with pytest.raises(UserError, match="no images"):
        len(Unlabelled(str(tmp_path)))
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("b.png", "deep/a.JPG", "deep/er/c.webp", "deep/notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    source = Unlabelled(str(tmp_path))
    names = [source.describe(i).removeprefix(f"{tmp_path}/") for i in range(3)]
    assert names == [
        "b.png",
        "deep/a.JPG",
        "deep/er/c.webp",
    ]
    assert source[0] == {"image": b"x", "label": 0}
