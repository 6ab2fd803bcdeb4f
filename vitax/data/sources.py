"""Random access to examples: ``SOURCES`` and the sources that hold arrays.

A source is a description until it is first asked for its length or an example:
constructing one reads nothing, so a recipe can be planned where its data are not.

A source offers:
  ``__len__()``, ``__getitem__(i) -> {"image": uint8[H, W, C] or bytes, "label": int}``;
  ``class_names``: tuple of str, or None where the source does not know them;
  ``fingerprint()``: plain data that decides the content, without absolute paths;
  ``describe(i)``: what to call example i in an error;
and, where it can, ``gather(indices) -> {"image": uint8[B, H, W, C], "label": int[B]}``
(arrays) or ``__getitems__(indices) -> list of examples`` (storage that likes batches);
``targets(indices, labels, num_classes) -> float32[B, classes]`` (probabilities beside labels).
"""

import dataclasses
import functools
import gzip
import hashlib
import importlib.resources
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from vitax.core.errors import UserError
from vitax.data import order, splits
from vitax.data.composed import Concat, PseudoLabelled
from vitax.data.folder import Folder
from vitax.data.labelled import Labelled
from vitax.data.records import Tfds
from vitax.data.unlabelled import Unlabelled

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CLASS_NAMES = {"fashion_mnist": FASHION_CLASSES, "digits": tuple("0123456789")}


class ArraySource:
    """A source whose examples are rows of arrays: subclasses give ``_arrays``."""

    class_names: tuple[str, ...] | None = None

    @property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [N, H, W, C] and labels int32 [N]."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._arrays[1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        images, labels = self._arrays
        return {"image": images[index], "label": int(labels[index])}

    @property
    def known_labels(self) -> np.ndarray:
        """int32 [N]: of all examples, without reading one."""
        return self._arrays[1]

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Fresh arrays of many examples: image uint8 [B, H, W, C], label int32 [B]."""
        images, labels = self._arrays
        return {"image": images.take(indices, axis=0), "label": labels.take(indices)}

    def describe(self, index: int) -> str:
        return f"example {index}"


@dataclasses.dataclass(frozen=True)
class Embedded(ArraySource):
    """A small data set that ships with vitax: no file, no network.

    Attributes:
      name: ``fashion_mnist`` (10,000 train and 1,000 test images 28x28x1) or
        ``digits`` (797 train and 1,000 test images 8x8x1); ten classes each.
      split: ``train`` or ``test``, or a slice such as ``train[:90%]``.
      limit: keep only the first this many of a class-balanced, seeded subset.
      subset_seed: chooses that subset.
    """

    name: Literal["fashion_mnist", "digits"] = "fashion_mnist"
    split: str = "train"
    limit: int | None = None
    subset_seed: int = 0

    @functools.cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        if self.name not in CLASS_NAMES:
            raise UserError(f'embedded: no data set "{self.name}". Valid: {", ".join(sorted(CLASS_NAMES))}.')
        base, part = splits.parse(self.split, f"embedded {self.name}")
        if base not in ("train", "test"):
            raise UserError(f'embedded {self.name}: no split "{base}". Valid: train, test (and slices: train[:90%]).')
        path = importlib.resources.files("vitax.data.embedded") / f"{self.name}.npz"
        with path.open("rb") as file, np.load(file) as arrays:
            images, labels = arrays[f"{base}_images"], arrays[f"{base}_labels"]
        start, stop = splits.bounds(part, len(labels))
        images, labels = images[start:stop, :, :, None], labels[start:stop].astype(np.int32)
        if self.limit is not None:
            if not 0 < self.limit <= len(labels):
                raise UserError(
                    f"embedded {self.name}: limit={self.limit}, but {self.split} has {len(labels):,} examples."
                )
            chosen = splits.balanced_subset(labels, self.limit, self.subset_seed)
            images, labels = images[chosen], labels[chosen]
        return images, labels

    @property
    def class_names(self) -> tuple[str, ...] | None:  # type: ignore[override]
        return CLASS_NAMES.get(self.name)

    def fingerprint(self) -> dict[str, Any]:
        return {"kind": "embedded", **dataclasses.asdict(self), "num_examples": len(self)}

    def describe(self, index: int) -> str:
        return f"example {index} of embedded {self.name} {self.split}"


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Reads an IDX file of unsigned bytes, gzipped or not: uint8 of the shape it states.

    Raises:
      UserError: absent, not IDX, or shorter than its header says.

    Reference: "The IDX file format", http://yann.lecun.com/exdb/mnist/.
    """
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"idx: no file {path} (looked from {os.getcwd()}). Expected an IDX file, gzipped or not.")
    raw = file.read_bytes()
    try:
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError) as error:
        raise UserError(f"idx: {path} is a damaged gzip file ({error}).") from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise UserError(
            f"idx: {path} is not an IDX file of unsigned bytes (it starts with {raw[:4].hex() or 'nothing'})."
        )
    dims = raw[3]
    shape = tuple(int.from_bytes(raw[4 + 4 * d : 8 + 4 * d], "big") for d in range(dims))
    body = np.frombuffer(raw, np.uint8, offset=min(4 + 4 * dims, len(raw)))
    if body.size != np.prod(shape):
        raise UserError(f"idx: {path} holds {body.size:,} values, but its header says {shape}: is it truncated?")
    return body.reshape(shape)


@dataclasses.dataclass(frozen=True)
class Idx(ArraySource):
    """Images and labels in IDX files (MNIST and its relatives), gzipped or not.

    Attributes:
      images: file of uint8 [N, H, W] or [N, H, W, C]; ``~`` and relative paths work.
      labels: file of uint8 [N].
      split: a slice of it such as ``[:90%]``; empty for all.
    """

    images: str
    labels: str
    split: str = ""

    @functools.cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        images, labels = read_idx(self.images), read_idx(self.labels)
        if images.ndim not in (3, 4) or labels.ndim != 1 or len(images) != len(labels):
            raise UserError(
                f"idx: {self.images} has shape {images.shape} and {self.labels} {labels.shape}; "
                "expected (N, H, W) or (N, H, W, C) and (N,)."
            )
        start, stop = splits.bounds(splits.parse(self.split, "idx")[1], len(labels))
        images = images[start:stop]
        return images if images.ndim == 4 else images[..., None], labels[start:stop].astype(np.int32)

    def fingerprint(self) -> dict[str, Any]:
        images, labels = self._arrays
        return {
            "kind": "idx",
            "images": os.path.basename(self.images),
            "labels": os.path.basename(self.labels),
            "split": self.split,
            "num_examples": len(labels),
            "shape": list(images.shape[1:]),
            "labels_digest": hashlib.blake2b(labels.tobytes(), digest_size=8).hexdigest(),
        }

    def describe(self, index: int) -> str:
        return f"example {index} of {self.images}"


@dataclasses.dataclass(frozen=True)
class Synthetic:
    """Images made up on the spot: a pattern for each class, under noise.

    Every image is a pure function of (seed, index); a model can learn the classes.

    Attributes:
      num_examples: how many.
      num_classes: label of example i is ``i % num_classes``.
      image_size: height and width, or both.
      channels: of the images.
      seed: chooses patterns and noise. Train and evaluation sets that share the
        seed share the patterns: keep them apart with ``offset``.
      offset: index of the first example.
    """

    num_examples: int = 1024
    num_classes: int = 10
    image_size: int | tuple[int, int] = 32
    channels: int = 3
    seed: int = 0
    offset: int = 0

    class_names = None

    @functools.cached_property
    def _shape(self) -> tuple[int, int, int]:
        size = self.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return height, width, self.channels

    def _pattern(self, label: int) -> np.ndarray:
        """uint8 [H, W, C], 0..127: a coarse 4x4 grid of colours."""
        height, width, channels = self._shape
        bits = order.hashed(order.key(self.seed, "pattern", label), np.arange(16 * channels))
        grid = (bits & np.uint64(127)).astype(np.uint8).reshape(4, 4, channels)
        return grid[np.arange(height) * 4 // height][:, np.arange(width) * 4 // width]

    @functools.cached_property
    def _patterns(self) -> dict[int, np.ndarray]:
        return {}

    def __len__(self) -> int:
        return self.num_examples

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Fresh arrays of many examples: image uint8 [B, H, W, C], label int32 [B]."""
        indices = np.asarray(indices, np.int64) + self.offset
        labels = (indices % self.num_classes).astype(np.int32)
        size = int(np.prod(self._shape))
        words = -(-size // 8)  # eight noise bytes from each hash
        counters = indices[:, None] * words + np.arange(words)
        noise = order.hashed(order.key(self.seed, "noise"), counters).astype("<u8", copy=False).view(np.uint8)
        images = noise[:, :size].reshape(-1, *self._shape) >> 1
        for label in np.unique(labels):
            if label not in self._patterns:
                self._patterns[label] = self._pattern(int(label))
            images[labels == label] += self._patterns[label]
        return {"image": images, "label": labels}

    def __getitem__(self, index: int) -> dict[str, Any]:
        one = self.gather(np.array([index]))
        return {"image": one["image"][0], "label": int(one["label"][0])}

    def fingerprint(self) -> dict[str, Any]:
        return {"kind": "synthetic", **dataclasses.asdict(self)}

    def describe(self, index: int) -> str:
        return f"synthetic example {index}"


SOURCES: dict[str, Any] = {
    "concat": Concat,
    "embedded": Embedded,
    "folder": Folder,
    "idx": Idx,
    "labelled": Labelled,
    "pseudo_labelled": PseudoLabelled,
    "synthetic": Synthetic,
    "tfds": Tfds,
    "unlabelled": Unlabelled,
}

__all__: Sequence[str] = ["CLASS_NAMES", "SOURCES", "Embedded", "Folder", "Idx", "Synthetic", "Tfds", "read_idx"]
