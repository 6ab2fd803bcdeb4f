"""The laws of the pipeline: purity, coverage, independence of hosts and threads; its errors."""

import copy
import dataclasses
import json
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from vitax.core.errors import UserError
from vitax.data.image_ops import CentralCrop, Decode, Flip, InceptionCrop, RandomCrop, Resize
from vitax.data.pipeline import Pipeline
from vitax.data.randaugment import RandAugment
from vitax.data.sources import Embedded, Folder, Synthetic
from vitax.data.step_indexed import difference

SOURCE = Synthetic(num_examples=50, num_classes=5, image_size=12, channels=3)
# Over whole arrays, image by image of arrays, and image by image of files.
OPS = {
    "arrays": [RandomCrop(12, padding=2), Flip()],
    "images": [InceptionCrop(12), Flip(), RandAugment(1, 5)],
    "files": [Decode(), InceptionCrop(12), Flip()],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """50 JPEGs in 5 classes."""
    root, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    for i in range(50):
        target = root / str(i % 5) / f"{i:02d}.jpg"
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + i, 90 - i, 3), np.uint8)).save(target)
    return root


@pytest.fixture(params=list(OPS))
def make(request, folder):
    """Pipelines of each way of making batches."""
    source = Folder(str(folder)) if request.param == "files" else SOURCE

    def make(**options):
        options = {"batch_size": 8, "seed": 3, "num_classes": 5, "image_size": 12, "threads": 2} | options
        return Pipeline(source, OPS[request.param], **options)

    return make


def take(iterator, count):
    batches = [next(iterator) for _ in range(count)]
    iterator.close()
    return batches


def assert_same(a, b):
    assert list(a) == list(b) == ["image", "label", "mask", "index"]
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def joined(parts):
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def test_types(make):
    batch = make().batch(0)
    assert {name: (x.dtype, x.shape) for name, x in batch.items()} == {
        "image": (np.uint8, (8, 12, 12, 3)),
        "label": (np.int32, (8,)),
        "mask": (bool, (8,)),
        "index": (np.int32, (8,)),
    }
    assert batch["mask"].all()
    assert batch["image"].flags.c_contiguous


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_a_batch_is_a_pure_function_of_its_number(make, threads):
    """Iterated = direct, from any start, over the border of an epoch (batch 6 straddles it)."""
    straight = [make(threads=1).batch(n) for n in range(9)]
    for start in (0, 5, 6):
        for n, batch in enumerate(take(make(threads=threads, prefetch=3).iterate(start), 9 - start), start):
            assert_same(batch, straight[n])
    assert_same(make(threads=threads).batch(6), straight[6])


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_together_make_the_global_batch(make, hosts):
    for n in (0, 6):
        parts = [make(process_index=h, process_count=hosts).batch(n) for h in range(hosts)]
        assert_same(joined(parts), make().batch(n))


def test_every_example_once_an_epoch_in_a_new_order(make):
    index = np.concatenate([make().batch(n)["index"] for n in range(25)])  # four epochs
    epochs = index.reshape(4, 50)
    for epoch in epochs:
        assert sorted(epoch) == list(range(50))
    assert len({tuple(e) for e in epochs}) == 4
    assert (make(seed=4).batch(0)["index"] != epochs[0, :8]).any()


def test_augmentation_differs_by_epoch_and_seed(make):
    by_example = {}
    for n in range(25):
        batch = make().batch(n)
        for image, i in zip(batch["image"], batch["index"]):
            by_example.setdefault(int(i), set()).add(image.tobytes())
    assert np.mean([len(images) for images in by_example.values()]) > 3
    a, b = make(shuffle=False).batch(0), make(shuffle=False, seed=4).batch(0)
    assert (a["index"] == b["index"]).all()
    assert (a["image"] != b["image"]).any()


def test_without_shuffle_positions_wrap(make):
    index = np.concatenate([make(shuffle=False).batch(n)["index"] for n in range(13)])
    np.testing.assert_array_equal(index, np.arange(104) % 50)


def test_labels_and_pixels_belong_to_the_index():
    pipeline = Pipeline(SOURCE, [], batch_size=8, image_size=12)
    for n in (0, 6):
        batch = pipeline.batch(n)
        expected = SOURCE.gather(batch["index"])
        np.testing.assert_array_equal(batch["image"], expected["image"])
        np.testing.assert_array_equal(batch["label"], expected["label"])


@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [8, 12, 64])
def test_eval_covers_every_example_once(make, hosts, batch_size):
    runs = [list(make(process_index=h, process_count=hosts).eval_batches(batch_size)) for h in range(hosts)]
    count = make().num_eval_batches(batch_size)
    assert [len(run) for run in runs] == [count] * hosts
    batches = [joined(parts) for parts in zip(*runs)]
    for whole, parts in zip(make().eval_batches(batch_size), batches):
        assert_same(parts, whole)
        assert parts["image"].shape == (batch_size, 12, 12, 3)
    everything = joined(batches)
    np.testing.assert_array_equal(everything["index"][everything["mask"]], np.arange(50))
    padding = ~everything["mask"]
    assert padding.sum() == count * batch_size - 50
    assert all((everything[name][padding] == 0).all() for name in ("image", "label", "index"))


def test_inserting_an_op_leaves_the_randomness_of_the_others():
    """Flip and crop draw the same numbers whatever stands before them."""
    base = {"batch_size": 16, "image_size": 12, "shuffle": False}
    identity = [Resize(12), CentralCrop(12), RandAugment(0, 10)]
    plain = Pipeline(SOURCE, [RandomCrop(12, padding=2), Flip()], **base).batch(1)
    for ops in (
        [*identity, RandomCrop(12, padding=2), Flip()],
        [RandomCrop(12, padding=2), *identity, Flip()],
        [Decode(), Flip(0.0), RandomCrop(12, padding=2)],
    ):
        got = Pipeline(SOURCE, ops, **base).batch(1)
        if isinstance(ops[0], Decode):  # without mirroring, but the same crops
            plain = Pipeline(SOURCE, [RandomCrop(12, padding=2)], **base).batch(1)
        np.testing.assert_array_equal(got["image"], plain["image"])
    # A second op of a kind has a stream of its own: two flips do not cancel.
    twice = Pipeline(SOURCE, [Flip(), Flip()], **base).batch(1)["image"]
    assert (twice != Pipeline(SOURCE, [], **base).batch(1)["image"]).any()


def test_whole_array_and_image_by_image_agree():
    ops, base = [Decode(), RandomCrop(12, padding=2), Flip()], {"batch_size": 8, "image_size": 12}
    fast = Pipeline(SOURCE, ops, **base)
    assert fast._whole_batches

    class Plain:
        """The same examples without ``gather``."""

        def __len__(self):
            return len(SOURCE)

        def __getitem__(self, i):
            return SOURCE[i]

    slow = Pipeline(Plain(), ops, **base)
    assert not slow._whole_batches
    for n in (0, 6):
        assert_same(fast.batch(n), slow.batch(n))


def test_batches_have_buffers_of_their_own(make):
    pipeline = make()
    first, *rest = take(pipeline.iterate(), 5)
    kept = copy.deepcopy(first)
    for other in rest:
        for name in other:
            assert not np.shares_memory(first[name], other[name])
            other[name][...] = 0
    assert_same(first, kept)
    assert_same(pipeline.batch(0), kept)  # and the source is untouched


def test_closing_stops_the_threads(make):
    before = threading.active_count()
    iterator = make(prefetch=3).iterate()
    next(iterator)
    assert threading.active_count() > before
    iterator.close()
    assert threading.active_count() == before
    dropped = make().iterate()
    next(dropped)
    del dropped
    deadline = time.time() + 5
    while threading.active_count() > before and time.time() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise KeyboardInterrupt"])
def test_no_noise_at_exit(ending):
    code = f"""
import sys
from vitax.data.pipeline import Pipeline
from vitax.data.image_ops import InceptionCrop
from vitax.data.sources import Synthetic
it = Pipeline(Synthetic(image_size=64), [InceptionCrop(64)], batch_size=64, image_size=64, prefetch=3).iterate()
next(it); next(it)
{ending}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    if "Keyboard" in ending:
        assert done.stderr.strip().splitlines()[-1] == "KeyboardInterrupt"
        assert done.stderr.count("Traceback") == 1
    else:
        assert (done.stderr, done.returncode) == ("", 3 if ending else 0)


def test_an_error_surfaces_at_its_batch(folder, tmp_path):
    import shutil

    root = tmp_path / "broken"
    shutil.copytree(folder, root)
    source = Folder(str(root))
    pipeline = Pipeline(source, OPS["files"], batch_size=8, num_classes=5, image_size=12, shuffle=False)
    (root / "2" / "07.jpg").write_bytes((root / "2" / "07.jpg").read_bytes()[:900])
    bad = next(i for i in range(50) if source.describe(i).endswith("2/07.jpg"))
    iterator = pipeline.iterate()
    for _ in range(bad // 8):
        next(iterator)
    with pytest.raises(UserError, match=rf"batch {bad // 8}: .*2/07\.jpg: not a readable image"):
        next(iterator)
    assert next(iterator, None) is None
    (root / "2" / "07.jpg").unlink()
    with pytest.raises(UserError, match=r"cannot read .*2/07\.jpg"):
        pipeline.batch(bad // 8)


def test_a_bug_in_an_op_keeps_its_type_and_names_the_batch():
    @dataclasses.dataclass(frozen=True)
    class Broken:
        uniforms = 1

        def __call__(self, image, u):
            raise ZeroDivisionError("oops")

    with pytest.raises(ZeroDivisionError) as error:
        next(Pipeline(SOURCE, [Broken()], batch_size=8, image_size=12).iterate(7))
    assert error.value.__notes__ == ["while making batch 7"]


def test_an_error_in_a_small_batch_comes_after_the_good_ones():
    class Late(Synthetic):
        def gather(self, indices):
            if 30 in indices:
                raise UserError("no example 30")
            return super().gather(indices)

    pipeline = Pipeline(Late(50, 5, 12), [], batch_size=8, image_size=12, shuffle=False)
    iterator = pipeline.iterate()
    for n in range(3):
        assert next(iterator)["index"][0] == 8 * n
    with pytest.raises(UserError, match="batch 3: no example 30"):
        next(iterator)


@pytest.mark.parametrize("ops", [[], [InceptionCrop(12)]])
def test_labels_out_of_range(ops):
    pipeline = Pipeline(SOURCE, ops, batch_size=8, num_classes=3, image_size=12, shuffle=False)
    with pytest.raises(UserError, match="synthetic example 3 has label 3, but num_classes=3: labels must be 0 to"):
        pipeline.batch(0)


def test_labels_out_of_range_name_file_and_class(folder):
    pipeline = Pipeline(Folder(str(folder)), OPS["files"], batch_size=8, num_classes=4, image_size=12)
    with pytest.raises(UserError, match=r'4/\d\d\.jpg has label 4 \("4"\).*has 5 classes: set num_classes=5'):
        list(pipeline.eval_batches())

    class Negative(Synthetic):
        def gather(self, indices):
            return {**super().gather(indices), "label": np.full(len(indices), -1)}

    with pytest.raises(UserError, match="has label -1"):
        Pipeline(Negative(image_size=12), [], batch_size=8, image_size=12).batch(0)


def test_wrong_sizes(folder):
    with pytest.raises(UserError, match=r'example 0: the image is 12x12x3 .* 16x16x3.*"resize".*image_size=\(12, 12\)'):
        Pipeline(SOURCE, [], batch_size=8, image_size=16, shuffle=False).batch(0)
    with pytest.raises(UserError, match=r'12x12x3 .* 12x12x1.*"decode", "channels": 1.*channels=3'):
        Pipeline(SOURCE, [], batch_size=8, image_size=12, channels=1).batch(0)
    with pytest.raises(UserError, match=r'/\d/\d\d\.jpg: the image is \d+x\d+x3 after the ops.*"resize"'):
        Pipeline(Folder(str(folder)), [Decode()], batch_size=8, image_size=12).batch(0)
    with pytest.raises(UserError, match=r"\.jpg is an encoded file.*Put .*decode.* first"):
        Pipeline(Folder(str(folder)), [Resize(12)], batch_size=8, image_size=12).batch(0)
    with pytest.raises(UserError, match=r"\.jpg: central_crop: cannot take"):
        Pipeline(Folder(str(folder)), [Decode(), CentralCrop(60)], batch_size=50, image_size=60).batch(0)


def test_bad_arguments():
    with pytest.raises(UserError, match=r"batch_size=9 .* multiple of the 2 processes \(for example 8\)"):
        Pipeline(SOURCE, [], batch_size=9, image_size=12, process_count=2)
    with pytest.raises(UserError, match="batch_size=7"):
        Pipeline(SOURCE, [], batch_size=8, image_size=12, process_count=2).eval_batches(7)
    with pytest.raises(UserError, match="process_index=2"):
        Pipeline(SOURCE, [], batch_size=8, image_size=12, process_index=2, process_count=2)
    with pytest.raises(UserError, match="no examples"):
        Pipeline(Embedded(name="digits", split="train[5:5]"), [], batch_size=8, image_size=8)
    with pytest.raises(UserError, match="threads=0"):
        Pipeline(SOURCE, [], batch_size=8, image_size=12, threads=0)


def test_fingerprints_and_their_difference(make):
    base = make().fingerprint()
    assert json.loads(json.dumps(base)) == base
    assert make(threads=1, prefetch=1, process_index=1, process_count=2).fingerprint() == base
    assert difference(base, make().fingerprint()) == []
    assert difference(base, make(batch_size=16).fingerprint()) == ["data.batch_size: was 8, is 16"]
    assert difference(base, make(seed=4, shuffle=False).fingerprint()) == [
        "data.seed: was 3, is 4",
        "data.shuffle: was true, is false",
    ]
    ops = Pipeline(SOURCE, [Flip(0.25)], batch_size=8, image_size=12).fingerprint()
    other = Pipeline(Synthetic(image_size=12), [Flip()], batch_size=8, image_size=12).fingerprint()
    assert difference(ops, other) == [
        "data.source.num_examples: was 50, is 1024",
        "data.source.num_classes: was 5, is 10",
        "data.ops[0].probability: was 0.25, is 0.5",
    ]
    fewer = Pipeline(SOURCE, [], batch_size=8, image_size=12).fingerprint()
    assert difference(ops, fewer) == ['data.ops: was [{"kind": "flip", "probability": 0.25}], is []']
    assert str(pathlib.Path.home()) not in json.dumps(base)
