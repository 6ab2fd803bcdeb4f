"""Every source: what it holds, what it says when it cannot, and that fingerprints tell."""

import gzip
import json
import pathlib
import re

import numpy as np
import pytest

from vitax.core.errors import UserError
from vitax.data import splits
from vitax.data.sources import SOURCES, Embedded, Folder, Idx, Synthetic, Tfds, read_idx


def png(color: int, size: tuple[int, int] = (8, 6)) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), color, np.uint8)).save(file, "png")
    return file.getvalue()


def make_folder(root: pathlib.Path, classes=("ant", "bee"), count: int = 10) -> pathlib.Path:
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i:02d}.png").write_bytes(png(20 * c + i))
    return root


def write_idx(path: pathlib.Path, array: np.ndarray, compress: bool = False) -> str:
    raw = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(raw) if compress else raw)
    return str(path)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", range(10)),
        ("train[:90%]", range(9)),
        ("train[90%:]", range(9, 10)),
        ("train[2:5]", range(2, 5)),
        ("train[-3:]", range(7, 10)),
        ("train[:-30%]", range(7)),
        ("[25%:75%]", range(2, 8)),
        ("train[5:100]", range(5, 10)),
        ("train[7:3]", range(0)),
    ],
)
def test_slices(split, expected):
    start, stop = splits.bounds(splits.parse(split, "x")[1], 10)
    assert list(range(start, stop)) == list(expected)


@pytest.mark.parametrize("split", ["train[", "train[a:b]", "train[3]", "train[:5]x"])
def test_bad_slices(split):
    with pytest.raises(UserError, match=r"train\[:90%\]"):
        splits.parse(split, "x")


def test_balanced_subsets_nest_and_balance():
    labels = np.random.default_rng(0).integers(0, 7, 500)
    small, large = splits.balanced_subset(labels, 50, 3), splits.balanced_subset(labels, 200, 3)
    np.testing.assert_array_equal(small, large[:50])
    assert len(set(large)) == 200
    assert np.ptp(np.bincount(labels[large])) <= 1
    assert set(splits.balanced_subset(labels, 50, 4)) != set(small)


@pytest.mark.parametrize(
    ("name", "train", "shape"), [("fashion_mnist", 10_000, (28, 28, 1)), ("digits", 797, (8, 8, 1))]
)
def test_embedded(name, train, shape):
    source = Embedded(name=name)
    assert len(source) == train
    assert len(source.class_names) == 10
    test = Embedded(name=name, split="test")
    assert len(test) == 1000
    assert np.bincount([test[i]["label"] for i in range(1000)]).tolist() == [100] * 10
    assert source[3]["image"].shape == shape
    assert source[3]["image"].dtype == np.uint8
    few = Embedded(name=name, limit=20)
    assert np.bincount([few[i]["label"] for i in range(20)]).tolist() == [2] * 10
    seen = {source[i]["image"].tobytes() for i in range(train)}
    assert sum(test[i]["image"].tobytes() in seen for i in range(1000)) <= 2  # no leak (the originals have twins)


def test_embedded_is_small_licensed_and_from_the_originals(vitax_data):
    folder = pathlib.Path(splits.__file__).parent / "embedded"
    assert sum(f.stat().st_size for f in folder.iterdir() if f.is_file()) < 6_000_000
    notice = (folder / "NOTICE.txt").read_text()
    assert "Copyright (c) 2017 Zalando SE, https://tech.zalando.com" in notice
    assert "Attribution 4.0" in notice
    originals = read_idx(vitax_data / "fashion-mnist" / "train-images-idx3-ubyte.gz")
    labels = read_idx(vitax_data / "fashion-mnist" / "train-labels-idx1-ubyte.gz")
    chosen = np.sort(splits.balanced_subset(labels, 10_000, 0))
    images, kept = Embedded()._arrays
    np.testing.assert_array_equal(images[..., 0], originals[chosen])
    np.testing.assert_array_equal(kept, labels[chosen])


def test_embedded_errors():
    with pytest.raises(UserError, match="Valid: digits, fashion_mnist"):
        len(Embedded(name="fashion"))
    with pytest.raises(UserError, match='no split "val"'):
        len(Embedded(split="val"))
    with pytest.raises(UserError, match="limit=5000, but train has 797"):
        len(Embedded(name="digits", limit=5000))


@pytest.mark.parametrize("compress", [False, True])
def test_idx(tmp_path, compress):
    images = np.arange(10 * 4 * 3, dtype=np.uint8).reshape(10, 4, 3)
    labels = np.arange(10, dtype=np.uint8) % 3
    source = Idx(write_idx(tmp_path / "i", images, compress), write_idx(tmp_path / "l", labels, compress))
    assert len(source) == 10
    np.testing.assert_array_equal(source[7]["image"][..., 0], images[7])
    assert source[7]["label"] == 1
    part = Idx(source.images, source.labels, split="[50%:]")
    np.testing.assert_array_equal(part.gather(np.array([0, 2]))["image"][..., 0], images[[5, 7]])
    assert part.fingerprint() != source.fingerprint()


def test_idx_errors(tmp_path):
    images = write_idx(tmp_path / "i", np.zeros((4, 2, 2), np.uint8))
    with pytest.raises(UserError, match=r"no file .*nowhere .*looked from"):
        len(Idx(str(tmp_path / "nowhere"), images))
    with pytest.raises(UserError, match=r"shape \(4, 2, 2\) and .* \(3,\)"):
        len(Idx(images, write_idx(tmp_path / "l", np.zeros(3, np.uint8))))
    (tmp_path / "cut").write_bytes((tmp_path / "i").read_bytes()[:-3])
    with pytest.raises(UserError, match="truncated"):
        read_idx(tmp_path / "cut")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UserError, match="not an IDX file"):
        read_idx(tmp_path / "text")
    (tmp_path / "gz").write_bytes(gzip.compress(b"1234" * 100)[:-20])
    with pytest.raises(UserError, match="damaged gzip"):
        read_idx(tmp_path / "gz")


def test_folder(tmp_path, monkeypatch):
    make_folder(tmp_path / "train")
    (tmp_path / "train" / "bee" / "notes.txt").write_text("not an image")
    source = Folder(str(tmp_path), "train")
    assert source.class_names == ("ant", "bee")
    assert [source[i]["label"] for i in range(len(source))] == [0] * 10 + [1] * 10
    assert source[12]["image"] == png(22)
    assert source.describe(12).endswith("train/bee/02.png")
    left, right = Folder(str(tmp_path), "train[:40%]"), Folder(str(tmp_path), "train[40%:]")
    names = [set(s._listing[1]) for s in (source, left, right)]
    assert names[1] | names[2] == names[0]
    assert not names[1] & names[2]
    assert {left[i]["label"] for i in range(8)} == {0, 1}  # though the first ten files are all ants
    assert left.class_names == right.class_names == source.class_names
    monkeypatch.chdir(tmp_path)
    assert len(Folder("train")) == len(Folder("./", "train")) == 20
    assert len(Folder("train", "[:50%]")) == 10
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(Folder("~/train")) == 20


def test_folder_errors(tmp_path):
    make_folder(tmp_path / "train")
    with pytest.raises(UserError) as error:
        len(Folder(str(tmp_path / "nowhere"), "train"))
    assert all(part in str(error.value) for part in ("nowhere/train", "looked from", "Expected:", "cat/  1.jpg"))
    with pytest.raises(UserError, match=r'holds train\. Did you mean "train"\?'):
        len(Folder(str(tmp_path), "trian"))
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no images \(\.jpg"):
        len(Folder(str(tmp_path / "empty")))
    source = Folder(str(tmp_path / "train"))
    assert len(source) == 20
    (tmp_path / "train" / "ant" / "03.png").unlink()
    with pytest.raises(UserError, match=r"cannot read .*ant/03\.png"):
        source[3]


def test_synthetic_is_pure_and_can_be_learned():
    source = Synthetic(num_examples=200, num_classes=4, image_size=(6, 10), channels=1)
    batch = source.gather(np.array([5, 3, 5]))
    np.testing.assert_array_equal(batch["image"][0], batch["image"][2])
    np.testing.assert_array_equal(batch["image"][1], source[3]["image"])
    everything = source.gather(np.arange(200))
    assert everything["image"].shape == (200, 6, 10, 1)
    means = np.stack([everything["image"][:100][everything["label"][:100] == c].mean(0) for c in range(4)])
    distance = ((everything["image"][100:, None] - means[None]) ** 2).sum((2, 3, 4))
    assert (distance.argmin(1) == everything["label"][100:]).mean() > 0.95
    shifted = Synthetic(num_examples=10, num_classes=4, image_size=(6, 10), channels=1, offset=5)
    np.testing.assert_array_equal(shifted[0]["image"], source[5]["image"])
    assert (Synthetic(seed=1)[0]["image"] != Synthetic()[0]["image"]).any()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data set of PNGs in ArrayRecord files, written by TFDS itself without TensorFlow."""
    tfds = pytest.importorskip("tensorflow_datasets")
    import io

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=["ant", "bee"]),
                "right": tfds.features.Sequence(tfds.features.ClassLabel(names=["ant", "bee"])),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(20), "test": self._generate_examples(6)}

        def _generate_examples(self, count=0):
            for i in range(count):
                yield i, {"image": io.BytesIO(png(i)), "label": i % 2, "right": [[], [1], [1, 0]][i % 3]}

    folder = tmp_path_factory.mktemp("tfds")
    builder = Tiny(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return folder, pathlib.Path(builder.data_path)


def test_tfds(prepared):
    data_dir, directory = prepared
    for source in (Tfds("tiny", "train", str(data_dir)), Tfds(data_dir=str(directory))):
        assert len(source) == 20
        assert source.class_names == ("ant", "bee")
        examples = source.__getitems__(list(range(20)))
        assert {e["image"] for e in examples} == {png(i) for i in range(20)}  # encoded bytes travel
        assert source[4] == examples[4]
        assert str(data_dir) not in json.dumps(source.fingerprint())
    assert len(Tfds("tiny", "train[:75%]", str(data_dir))) == 15
    whole, joined = (Tfds("tiny", split, str(data_dir)) for split in ("train", "train[:8]+train[15:17]"))
    assert [joined[i] for i in range(len(joined))] == [whole[i] for i in (*range(8), 15, 16)]


def test_tfds_with_several_right_labels(prepared):
    """As ImageNet ReaL has them: none, one or more."""
    source = Tfds("tiny", "train", str(prepared[0]), label_key="right")
    assert source.class_names == ("ant", "bee")
    whole = Tfds("tiny", "train", str(prepared[0]))
    made = [next(i for i in range(20) if png(i) == whole[n]["image"]) for n in range(20)]
    right = [[[], [1], [1, 0]][i % 3] for i in made]
    assert [e["label"] for e in source.__getitems__(list(range(20)))] == [r[0] if r else 0 for r in right]
    target = source.targets(np.arange(20), np.zeros(20, np.int64), 2)
    assert [sorted(np.flatnonzero(row)) for row in target] == [sorted(r) for r in right]


def test_tfds_errors(prepared, tmp_path):
    data_dir, _ = prepared
    with pytest.raises(UserError, match=r"no folder .*looked from[\s\S]*file_format='array_record'"):
        len(Tfds("tiny", data_dir=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match=r'cannot find "no_such_set"[\s\S]*download_and_prepare'):
        len(Tfds("no_such_set", data_dir=str(data_dir)))
    with pytest.raises(UserError, match="is not prepared[\\s\\S]*download_and_prepare"):
        len(Tfds("cifar10", data_dir=str(tmp_path)))
    with pytest.raises(UserError, match=r'split "validation" .*It has test, train'):
        len(Tfds("tiny", "validation", str(data_dir)))
    with pytest.raises(UserError, match=r'no feature "picture"; it has image, label, right'):
        len(Tfds("tiny", data_dir=str(data_dir), image_key="picture"))
    with pytest.raises(UserError, match="no name, and"):
        len(Tfds(data_dir=str(tmp_path)))


def test_fingerprints_tell_contents_apart(tmp_path):
    a, b = make_folder(tmp_path / "a"), make_folder(tmp_path / "b")
    assert Folder(str(a)).fingerprint() == Folder(str(b)).fingerprint()  # moved, not changed
    (b / "ant" / "new.png").write_bytes(png(1))
    prints = [
        Folder(str(a)).fingerprint(),
        Folder(str(b)).fingerprint(),
        Folder(str(a), "[:50%]").fingerprint(),
        Folder(str(a), "[50%:]").fingerprint(),
        *(Embedded(**fields).fingerprint() for fields in ({}, {"limit": 9}, {"limit": 9, "subset_seed": 1})),
        *(Synthetic(**fields).fingerprint() for fields in ({}, {"seed": 1}, {"num_examples": 9})),
    ]
    dumped = [json.dumps(p, sort_keys=True) for p in prints]
    assert len(set(dumped)) == len(dumped)
    assert not re.search(re.escape(str(tmp_path)), " ".join(dumped))


def test_constructing_reads_nothing():
    """So that a recipe is planned where its data are not."""
    Folder("/nowhere")
    Idx("/nowhere", "/nowhere")
    Tfds("no_such_set")
    assert set(SOURCES) == {
        *("concat", "embedded", "folder", "idx", "labelled", "pseudo_labelled", "synthetic", "tfds", "unlabelled"),
    }
