"""A user's folder: its layout, and what is said about its faults."""

import shutil

import pytest

from tests.images import of_every_kind, shapes, write
from vitax import own_data
from vitax.core.errors import UserError


def test_class_folders_are_split(tmp_path):
    found = own_data.find(str(shapes(tmp_path / "d", 20)))
    assert found.class_names == ("bars", "blob", "stripes")
    assert (found.count("train"), found.count("val"), found.count("test")) == (48, 12, 0)
    assert own_data.find(str(tmp_path / "d"), fraction=0.5).count("val") == 30
    assert not own_data.inspect(found, skip_unreadable=False).specs["train"].get("exclude")


@pytest.mark.parametrize(("val", "test"), [("val", None), ("valid", "test"), ("Validation", "testing"), (None, "test")])
def test_folders_that_come_split(tmp_path, val, test):
    for name, count in (("train", 12), (val, 3), (test, 5)):
        if name:
            shapes(tmp_path / name, count)
    found = own_data.find(str(tmp_path))
    assert found.count("train") == 36
    assert found.count("val") == (9 if val else 15)
    assert found.count("test") == (15 if val and test else 0)
    assert any("test/ is what the run is watched by" in w for w in found.warnings) == (val is None)
    with pytest.raises(UserError, match="--val-fraction 0.2: nothing to hold out"):
        own_data.find(str(tmp_path), fraction=0.2)


def test_a_train_folder_alone_is_split_and_a_class_called_train_is_a_class(tmp_path):
    shapes(tmp_path / "one" / "train", 10)
    assert own_data.find(str(tmp_path / "one")).count("val") == 6
    shapes(tmp_path / "two", 10, classes=("bus", "car", "train"))
    assert own_data.find(str(tmp_path / "two")).class_names == ("bus", "car", "train")
    found = own_data.find(str(tmp_path / "two"), val=str(tmp_path / "two"))
    assert found.count("val") == found.count("train") == 30


def test_validation_may_lack_a_class_but_not_have_one_more(tmp_path):
    shapes(tmp_path / "train", 10)
    shapes(tmp_path / "val", 4)
    shutil.rmtree(tmp_path / "val" / "bars")
    found = own_data.find(str(tmp_path))
    assert found.source("val").class_names == found.class_names
    assert set(found.source("val").labels) == {1, 2}
    assert "no images of bars" in found.warnings[0]
    shutil.copytree(tmp_path / "val" / "blob", tmp_path / "val" / "blub")
    with pytest.raises(UserError, match=r"val: class blub is not among those to train on \(bars, blob, stripes\)"):
        own_data.find(str(tmp_path))


def test_unreadable_files_are_listed_and_skipped_only_if_asked(tmp_path):
    root = shapes(tmp_path / "d", 12)
    (root / "blob" / "003.png").write_bytes(b"hello")
    (root / "blob" / "notes.txt").write_text("x")
    found = own_data.find(str(root))
    with pytest.raises(UserError) as error:
        own_data.inspect(found, skip_unreadable=False)
    message = str(error.value)
    assert message.startswith("2 of the files")
    assert "blob/003.png: not a readable image" in message
    assert "blob/notes.txt: not .jpg" in message
    assert message.endswith("--skip-unreadable.")
    skipped = own_data.inspect(found, skip_unreadable=True)
    assert skipped.specs["train"]["exclude"] == skipped.specs["val"]["exclude"] == ("blob/003.png",)
    assert skipped.count("train") + skipped.count("val") == 35
    assert any("Left out, 2 files" in w and "blob/003.png" in w for w in skipped.warnings)


def test_long_lists_are_cut(tmp_path):
    root = shapes(tmp_path / "d", 2)
    write(root / "bars", {f"x{i:02d}.jpg": b"" for i in range(30)})
    with pytest.raises(UserError, match=r"30 of the files[\s\S]*x19\.jpg: empty file\n  \.\.\. and 10 more"):
        own_data.inspect(own_data.find(str(root)), skip_unreadable=False)


def test_copies_across_the_split_and_between_classes_are_reported(tmp_path):
    root = shapes(tmp_path / "d", 30)
    found = own_data.find(str(root))
    val, train = found.source("val").names[0], found.source("train").names[0]
    assert val.startswith("bars/")
    assert train.startswith("bars/")
    shutil.copy(root / val, root / train)
    other = next(n for n in found.source("train").names if n.startswith("blob/"))
    shutil.copy(root / val, root / other)
    warnings = own_data.inspect(own_data.find(str(root)), skip_unreadable=False).warnings
    across = next(w for w in warnings if "trained on and measured by" in w)
    assert "1 times" in across
    assert f"{train} (train)" in across
    assert f"{val} (val)" in across
    assert "has two classes, 1 times" in next(w for w in warnings if "two classes" in w)


def test_no_copies_no_such_warning(tmp_path):
    warnings = own_data.inspect(own_data.find(str(shapes(tmp_path / "d", 12))), skip_unreadable=False).warnings
    assert not any("same image" in w for w in warnings)


def test_small_and_unequal_classes_are_told(tmp_path):
    root = shapes(tmp_path / "d", 60)
    for i in range(4, 60):
        (root / "blob" / f"{i:03d}.png").unlink()
    (root / "void").mkdir()
    found = own_data.inspect(own_data.find(str(root)), skip_unreadable=False)
    text = "\n".join(found.warnings)
    assert "Fewer than 10 images: void (0), blob (4)." in text
    assert "Imbalanced: bars has 48 images to train on, blob 3." in text
    assert "Accuracy is measured on 25 images: one image is 4.0 points." in text


def test_faults_that_cannot_be_mended_here(tmp_path):
    shapes(tmp_path / "one", 3, classes=("only", "b", "c"))
    shutil.rmtree(tmp_path / "one" / "b")
    shutil.rmtree(tmp_path / "one" / "c")
    with pytest.raises(UserError, match=r"one class only \(only\)"):
        own_data.find(str(tmp_path / "one"))
    with pytest.raises(UserError, match="no class has two"):
        own_data.inspect(own_data.find(str(shapes(tmp_path / "few", 1))), skip_unreadable=False)
    with pytest.raises(UserError, match="--val-fraction 1.5: expected a share"):
        own_data.find(str(tmp_path / "few"), fraction=1.5)
    (tmp_path / "few" / "stray.jpg").write_bytes(b"")
    assert "1 images lie in" in own_data.find(str(tmp_path / "few")).warnings[0]


def test_every_kind_of_file_is_accepted_and_csv_too(tmp_path):
    write(tmp_path / "d" / "a", of_every_kind(0))
    write(tmp_path / "d" / "b", of_every_kind(1))
    found = own_data.inspect(own_data.find(str(tmp_path / "d")), skip_unreadable=False)
    assert found.count("train") + found.count("val") == 2 * len(of_every_kind())
    lines = [f"d/{c}/{name},{c}" for c in "ab" for name in of_every_kind()]
    (tmp_path / "l.csv").write_text("\n".join([*lines, "d/a/absent.png,a"]))
    listed = own_data.find(str(tmp_path / "l.csv"))
    with pytest.raises(UserError, match=r"absent\.png: cannot be read \(No such file"):
        own_data.inspect(listed, skip_unreadable=False)
    assert own_data.inspect(listed, skip_unreadable=True).specs["val"]["exclude"] == ("d/a/absent.png",)
