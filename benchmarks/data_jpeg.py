"""JPEG files to batches of 224-pixel crops, in images a second: vitax against tf.data, in one run.

    pip install -r benchmarks/requirements.txt
    python benchmarks/data_jpeg.py --threads 1
    python benchmarks/data_jpeg.py --threads 2

Each side reads a folder of files in a random order, decodes, takes a random part of 5 to
100 % of the area, resizes it (bilinear), mirrors half and gives uint8 batches of 64. The
process is bound to as many cores as threads. Bursts alternate. The files are 500x375,
about 60 KB, cut out of the two photographs that come with scikit-learn.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from vitax.data.image_ops import Decode, Flip, InceptionCrop
from vitax.data.pipeline import Pipeline
from vitax.data.sources import Folder

BATCH, SIZE = 64, 224


def make_files(folder: pathlib.Path, count: int) -> None:
    import simplejpeg
    import sklearn.datasets

    photos, rng = sklearn.datasets.load_sample_images().images, np.random.default_rng(0)
    for i in range(count):
        photo = photos[i % 2]
        top, left = rng.integers(photo.shape[0] - 375 + 1), rng.integers(photo.shape[1] - 500 + 1)
        part = np.ascontiguousarray(photo[top : top + 375, left : left + 500][:, :: rng.choice([-1, 1])])
        target = folder / str(i % 10) / f"{i:04d}.jpg"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(simplejpeg.encode_jpeg(part, quality=int(rng.integers(85, 96)), colorsubsampling="420"))


def vitax_batches(folder: pathlib.Path, threads: int) -> Iterator[np.ndarray]:
    pipeline = Pipeline(
        Folder(str(folder)),
        [Decode(), InceptionCrop(SIZE), Flip()],
        batch_size=BATCH,
        num_classes=10,
        image_size=SIZE,
        threads=threads,
    )
    for batch in pipeline.iterate():
        yield batch["image"]


def tf_batches(folder: pathlib.Path, threads: int) -> Iterator[np.ndarray]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)

    def one(path: "tf.Tensor") -> "tf.Tensor":
        data = tf.io.read_file(path)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(data),
            tf.zeros([0, 0, 4], tf.float32),
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.05, 1.0),
            min_object_covered=0,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], 0)
        image = tf.image.decode_and_crop_jpeg(data, window, channels=3)
        image = tf.image.resize(image, (SIZE, SIZE))
        return tf.cast(tf.clip_by_value(tf.round(tf.image.random_flip_left_right(image)), 0, 255), tf.uint8)

    paths = sorted(str(p) for p in folder.glob("*/*.jpg"))
    dataset = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths)).repeat()
    dataset = dataset.map(one, num_parallel_calls=threads, deterministic=True).batch(BATCH).prefetch(2)
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    return iter(dataset.with_options(options).as_numpy_iterator())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bursts", type=int, default=9)
    parser.add_argument("--batches", type=int, default=24, help="a burst")
    parser.add_argument("--files", type=int, default=512)
    parser.add_argument("--folder", help="class folders of JPEG files of your own, in place of the made ones")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < args.threads:
        sys.exit(f"--threads {args.threads}, but this process may use {len(cores)} cores.")
    os.sched_setaffinity(0, cores[-args.threads :])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(args.folder or temporary)
        if not args.folder:
            make_files(folder, args.files)
        sides = {"vitax": vitax_batches(folder, args.threads), "tf.data": tf_batches(folder, args.threads)}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for i in range(args.bursts + 1):
            for name, batches in sides.items():
                for _ in range(4):  # what was made ahead while the other side ran
                    next(batches)
                start = time.perf_counter()
                for _ in range(args.batches):
                    next(batches)
                if i:  # the first warms up
                    rates[name].append(BATCH * args.batches / (time.perf_counter() - start))
        sides["vitax"].close()  # type: ignore[attr-defined]
    result: dict[str, object] = {
        name: {"best": round(max(r)), "median": round(statistics.median(r))} for name, r in rates.items()
    }
    result["vitax / tf.data"] = {
        "best": round(max(rates["vitax"]) / max(rates["tf.data"]), 3),
        "median": round(statistics.median(rates["vitax"]) / statistics.median(rates["tf.data"]), 3),
    }
    json.dump({"threads": args.threads, **result}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
