"""Class folders and CSVs: what is found, and that the split is a law of the names alone."""

import collections
import random

import numpy as np
import pytest

from tests.data.test_sources import make_folder, png
from vitax.core.errors import UserError
from vitax.data.labelled import Labelled, held_out, listing


def write_csv(path, rows, header=""):
    path.write_text(header + "".join(f"{a},{b}\n" for a, b in rows))
    return str(path)


def test_class_folders(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "ant" / "deep").mkdir()
    (tmp_path / "ant" / "deep" / "X.PNG").write_bytes(png(99))
    for name in ("bee/.DS_Store", "bee/Thumbs.db", "bee/notes.txt", "loose.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".git").mkdir()
    source = Labelled(str(tmp_path))
    assert source.class_names == ("ant", "bee")
    assert len(source) == 21
    assert np.bincount(source.labels).tolist() == [11, 10]
    where = source.names.index("ant/deep/X.PNG")
    assert source[where] == {"image": png(99), "label": 0}
    assert source.describe(where).endswith("ant/deep/X.PNG")
    assert listing(tmp_path).others == ("bee/notes.txt",)


@pytest.mark.parametrize(
    "header", ["", "path,label\n", "\ufeffpath,label\n", "label,id,filename\n", "Image,Class\n", "\n"]
)
def test_csv_with_and_without_a_header(tmp_path, header):
    make_folder(tmp_path / "images")
    rows = [(f"images/{c}/{i:02d}.png", f"a {c}") for c in ("ant", "bee") for i in range(10)]
    if header.startswith("label"):
        rows = [(f"{label},7", path) for path, label in rows]
    source = Labelled(write_csv(tmp_path / "labels.csv", rows, header))
    assert source.class_names == ("a ant", "a bee")
    assert source.labels.tolist() == [0] * 10 + [1] * 10
    assert source[12] == {"image": png(22), "label": 1}


def test_tsv_and_quotes(tmp_path):
    (tmp_path / "l.tsv").write_text("a.png\tsmall, grey\nb.png\tother\n")
    (tmp_path / "l.csv").write_text('a.png,"small, grey"\nb.png,other\n')
    assert Labelled(str(tmp_path / "l.tsv")).class_names == Labelled(str(tmp_path / "l.csv")).class_names
    assert Labelled(str(tmp_path / "l.csv")).class_names == ("other", "small, grey")


def test_the_split_depends_on_nothing_but_the_names():
    names = [f"{c}/{i:03d}.jpg" for c in "abc" for i in range({"a": 100, "b": 7, "c": 2}[c])]
    labels = np.array(["abc".index(n[0]) for n in names])
    chosen = {n for n, held in zip(names, held_out(names, labels, 0.1)) if held}
    assert collections.Counter(n[0] for n in chosen) == {"a": 10, "b": 1, "c": 1}
    for seed in range(5):
        order = list(range(len(names)))
        random.Random(seed).shuffle(order)
        mask = held_out([names[i] for i in order], labels[order], 0.1)
        assert {names[i] for i, held in zip(order, mask) if held} == chosen
    # The very choice, so that no later version moves images between training and validation.
    assert sorted(n for n in chosen if n[0] != "a") == ["b/005.jpg", "c/000.jpg"]


def test_a_file_more_moves_at_most_one_other():
    names = [f"a/{i:03d}.jpg" for i in range(100)]
    zeros = np.zeros(101, int)
    before = {n for n, held in zip(names, held_out(names, zeros[:100], 0.1)) if held}
    for new in ("a/new.jpg", "a/000a.jpg", "a/zzz.jpg"):
        more = [*names, new]
        after = {n for n, held in zip(more, held_out(more, zeros, 0.1)) if held}
        assert len(before - after) <= 1


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_every_class_of_two_is_on_both_sides(share):
    labels = np.repeat(np.arange(4), [1, 2, 3, 50])
    mask = held_out([f"{i}" for i in range(len(labels))], labels, share)
    for label, (least, most) in enumerate([(0, 0), (1, 1), (1, 2), (1, 49)]):
        assert least <= mask[labels == label].sum() <= most


def test_parts_are_disjoint_and_whole_and_exclusion_comes_first(tmp_path):
    make_folder(tmp_path)
    whole = Labelled(str(tmp_path))
    train, val = (Labelled(str(tmp_path), part=p, held_out=0.2) for p in ("train", "val"))
    assert sorted(train.names + val.names) == whole.names
    assert np.bincount(val.labels).tolist() == [2, 2]
    assert train.class_names == val.class_names == whole.class_names
    fewer = Labelled(str(tmp_path), part="val", held_out=0.2, exclude=tuple(val.names))
    assert not set(fewer.names) & set(val.names)
    assert np.bincount(fewer.labels).tolist() == [2, 2]
    prints = [str(s.fingerprint()) for s in (whole, train, val, fewer)]
    assert len(set(prints)) == 4
    assert str(tmp_path) not in "".join(prints)


def test_classes_may_be_given(tmp_path):
    make_folder(tmp_path)
    source = Labelled(str(tmp_path), classes=("aardvark", "ant", "bee"))
    assert source.class_names == ("aardvark", "ant", "bee")
    assert set(source.labels) == {1, 2}
    with pytest.raises(UserError, match="the class bee, which is none of ant, cow"):
        len(Labelled(str(tmp_path), classes=("ant", "cow")))


def test_errors_say_where_and_how_to_mend(tmp_path):
    make_folder(tmp_path / "data")
    for path, message in (
        (tmp_path / "dta", r'no folder or CSV .*looked from.*Did you mean "data"\?[\s\S]*cat/  1\.jpg'),
        (tmp_path / "data" / "ant", r"10 images lie in it, but in no class folder"),
        (tmp_path / "data" / "ant" / "00.png", "is a file, and not a .csv"),
    ):
        with pytest.raises(UserError, match=message):
            listing(path)
    for text, message in (
        ("", "holds no lines"),
        ("a.png\n", r'line 1: expected "path,label", got "a.png"'),
        ("path,label\na.png,\n", r"line 2: expected"),
        ("a.png,x\nb.png,y\na.png,y\n", r'line 3: a\.png has the label "y", and "x" on line 1'),
        ("path,colour\na.png,red\n", "lacks a column for the label"),
        ("name,label\na.png,red\n", "lacks a column for the path"),
    ):
        (tmp_path / "l.csv").write_text(text)
        with pytest.raises(UserError, match=message):
            listing(tmp_path / "l.csv")
    (tmp_path / "l.csv").write_bytes(b"\xff\xfe\x00,\n")
    with pytest.raises(UserError, match="UTF-8"):
        listing(tmp_path / "l.csv")
    with pytest.raises(UserError, match="needs a share between 0 and 1"):
        len(Labelled(str(tmp_path / "data"), part="val"))
    source = Labelled(str(tmp_path / "data"))
    assert len(source) == 20
    (tmp_path / "data" / "ant" / "03.png").unlink()
    with pytest.raises(UserError, match=r"cannot read .*ant/03\.png"):
        source[3]
