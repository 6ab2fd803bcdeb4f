"""MNIST-sized records a second: vitax' pipeline against Grain, in one run.

    pip install -r benchmarks/requirements.txt
    taskset -c 0 python benchmarks/data_small.py

Both shuffle anew each epoch, gather batches of 256 images of 28x28 out of memory and
mirror half of them. Bursts alternate; best and median of them, in examples a second.
``--no-flip`` leaves the mirroring out on both sides.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from vitax.data.image_ops import Flip
from vitax.data.pipeline import Pipeline
from vitax.data.sources import ArraySource

BATCH = 256


class Memory(ArraySource):
    """60,000 images, the size of MNIST."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (60_000, 28, 28, 1), np.uint8)
        self.labels = rng.integers(0, 10, 60_000).astype(np.int32)

    @property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return self.images, self.labels


def grain_batches(source: Memory, flip: bool) -> Callable[[int], object]:
    import grain

    def mirror(record: dict, rng: np.random.Generator) -> dict:
        if rng.random() < 0.5:
            record = {**record, "image": record["image"][:, ::-1]}
        return record

    dataset = grain.MapDataset.source(source).seed(0).shuffle().repeat(None)
    if flip:
        dataset = dataset.random_map(mirror)
    dataset = dataset.batch(BATCH)
    return lambda n: dataset[n]


def burst(make: Callable[[int], object], batches: int, first: int) -> float:
    start = time.perf_counter()
    for n in range(first, first + batches):
        make(n)
    return BATCH * batches / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursts", type=int, default=9)
    parser.add_argument("--no-flip", action="store_true")
    args = parser.parse_args()
    source, flip = Memory(), not args.no_flip
    pipeline = Pipeline(
        source, [Flip()] if flip else [], batch_size=BATCH, num_classes=10, image_size=28, channels=1, threads=1
    )
    iterator = pipeline.iterate()
    sides: dict[str, tuple[Callable[[int], object], int]] = {
        "vitax": (pipeline.batch, 1000),
        "vitax, iterated": (lambda n: next(iterator), 1000),
        "grain": (grain_batches(source, flip), 30),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(args.bursts + 1):
        for name, (make, batches) in sides.items():
            rate = burst(make, batches, i * batches)
            if i:  # the first warms up
                rates[name].append(rate)
    iterator.close()  # type: ignore[attr-defined]
    result: dict[str, object] = {
        name: {"best": round(max(r)), "median": round(statistics.median(r))} for name, r in rates.items()
    }
    for name in ("vitax", "vitax, iterated"):
        result[f"{name} / grain"] = {
            "best": round(max(rates[name]) / max(rates["grain"]), 1),
            "median": round(statistics.median(rates[name]) / statistics.median(rates["grain"]), 1),
        }
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
