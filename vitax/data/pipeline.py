"""Batches of images: batch ``n`` is a pure function of (seed, n)."""

import collections
import dataclasses
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from vitax.core.errors import UserError
from vitax.core.layout import channels_first
from vitax.data import composed, order
from vitax.data.image_ops import OPS, Decode, DecodeThen
from vitax.data.step_indexed import SMALL_BYTES, Batch, StepIndexed

_KINDS = {cls: kind for kind, cls in OPS.items()}


class Pipeline(StepIndexed):
    """Turns a source into batches of uint8 images.

    Random numbers are keyed by seed, global position and the name of the op's stream
    (``flip/0``: the first flip), never by thread, host or place in the list, so
    inserting another op leaves those of the rest as they were.

    Batches hold image uint8 [B, H, W, C], label int32 [B], mask, index, and under
    ``soft_labels`` target float32 [B, classes].

    Args:
      source: see ``vitax.data.sources``.
      ops: in order; see ``vitax.data.image_ops``.
      batch_size: of the global batch, over all processes.
      seed: of the order and of the augmentation.
      shuffle: a new permutation each epoch; otherwise the source's order, repeated.
      num_classes: labels must lie below it; None checks only that they are not negative.
      image_size: side, or (height, width), that every image must have after the ops.
      channels: that every image must have after the ops.
      threads: that work on images; None for as many as this process may use.
      prefetch: batches that are worked on ahead; needs threads of its own, which
        is what hides a slow producer (a queue alone does not).
      soft_labels: batches also hold ``target`` (see ``data.composed.soft_targets``).
      process_index: of this host.
      process_count: hosts; ``batch_size`` is a multiple of it.
    """

    def __init__(
        self,
        source: Any,
        ops: Sequence[Any],
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        num_classes: int | None = None,
        image_size: int | tuple[int, int],
        channels: int = 3,
        threads: int | None = None,
        prefetch: int = 2,
        soft_labels: bool = False,
        process_index: int = 0,
        process_count: int = 1,
    ):
        super().__init__(
            source,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            threads=threads,
            prefetch=prefetch,
            process_index=process_index,
            process_count=process_count,
        )
        self.ops, self.num_classes, self.soft_labels = tuple(ops), num_classes, soft_labels
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.shape = (int(height), int(width), channels)
        if hasattr(source, "known_labels"):  # those of other sources are looked at batch by batch
            self._check_labels(source.known_labels, np.arange(len(source)))
        self._streams = _streams(self.ops)
        self._steps = _fused(self._streams)
        self._whole_batches = hasattr(source, "gather") and all(hasattr(op, "batch") for op in self.ops)

    def images(self, indices: np.ndarray) -> np.ndarray:
        """uint8 [n, H, W, C]: these examples as evaluation sees them, read again."""
        return self._make(np.asarray(indices), np.asarray(indices), None)[0]

    def check(self) -> None:
        """Makes one example, so that bad data are found before devices are started."""
        self.images(np.zeros(1, np.int64))

    def fingerprint(self) -> dict[str, Any]:
        """What decides the batches, as JSON-ready data: not hosts, threads or paths."""
        ops = [{"kind": _KINDS.get(type(op), type(op).__name__), **dataclasses.asdict(op)} for op in self.ops]
        plain = {
            "source": self.source.fingerprint(),
            "ops": ops,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "num_classes": self.num_classes,
            "image": list(self.shape),
            **({"soft_labels": True} if self.soft_labels else {}),
        }
        return json.loads(json.dumps(plain))

    def _group(self, examples: int) -> int:
        local_bytes = examples * int(np.prod(self.shape))
        return max(1, min(8, SMALL_BYTES // local_bytes)) if self._whole_batches else 1

    def _train_batch(self, n: int, pool: Executor | None) -> Batch:
        positions = self._train_positions(n)
        indices = self._order(positions)
        image, label = self._make(indices, positions, pool)
        batch: Batch = {
            "image": image,
            "label": label,
            "mask": np.ones(len(indices), bool),
            "index": indices.astype(np.int32),
        }
        if self.soft_labels:
            batch["target"] = self._targets(indices, label)
        return batch

    def _eval_batch(self, n: int, batch_size: int, pool: Executor | None) -> Batch:
        positions = self._positions(n, batch_size)
        mask = positions < self.num_examples
        batch: Batch = {
            "image": np.zeros((len(mask), *self.shape), np.uint8),
            "label": np.zeros(len(mask), np.int32),
            "mask": mask,
            "index": np.where(mask, positions, 0).astype(np.int32),
        }
        real = positions[mask]
        if len(real):
            batch["image"][mask], batch["label"][mask] = self._make(real, real, pool)
        if self.soft_labels:
            batch["target"] = np.zeros((len(mask), self.num_classes or 0), np.float32)
            if len(real):
                batch["target"][mask] = self._targets(real, batch["label"][mask])
        return batch

    def _targets(self, indices: np.ndarray, label: np.ndarray) -> np.ndarray:
        assert self.num_classes is not None
        return composed.soft_targets(self.source, indices, label, self.num_classes)

    def _make(self, indices: np.ndarray, positions: np.ndarray, pool: Executor | None) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of these examples, with the random numbers of these positions."""
        if self._whole_batches:
            records = self.source.gather(indices)
            image, label = records["image"], records["label"]
            self._check_labels(label, indices)
            for stream, op in self._streams:
                image = op.batch(image, self._uniforms(stream, positions, op))
            self._check_shape(image.shape[1:], indices[0])
            return np.ascontiguousarray(image), label.astype(np.int32, copy=False)
        if hasattr(self.source, "gather"):
            records = self.source.gather(indices)
            images, label = list(records["image"]), np.asarray(records["label"])
        else:
            if hasattr(self.source, "__getitems__"):
                examples = self.source.__getitems__(indices.tolist())
            else:
                fetch = self.source.__getitem__
                # Reading releases the GIL, so files are opened side by side too.
                examples = list((pool.map if pool else map)(fetch, indices.tolist()))
            images, label = [e["image"] for e in examples], np.array([e["label"] for e in examples], np.int64)
        self._check_labels(label, indices)
        uniforms = [self._uniforms(stream, positions, op) for stream, op in self._steps]
        out = np.empty((len(indices), *self.shape), np.uint8)

        def work(i: int) -> None:
            self._one(images[i], [u[i] for u in uniforms], int(indices[i]), out[i])

        # Consuming the results raises the first error.
        collections.deque((pool.map if pool else map)(work, range(len(indices))), maxlen=0)
        return out, label.astype(np.int32)

    def _uniforms(self, stream: str, positions: np.ndarray, op: Any) -> np.ndarray:
        return order.uniforms(self.seed, stream, positions, op.uniforms)

    def _one(self, image: Any, uniforms: list[np.ndarray], index: int, out: np.ndarray) -> None:
        if isinstance(image, bytes) and not (self._steps and isinstance(self._steps[0][1], Decode | DecodeThen)):
            raise UserError(
                f"{self.source.describe(index)} is an encoded file, and the first of the ops is not decode. "
                'Put {"kind": "decode"} first in data.ops.'
            )
        try:
            for (_, op), u in zip(self._steps, uniforms):
                image = op(image, u)
        except UserError as error:
            raise UserError(f"{self.source.describe(index)}: {error}") from error
        self._check_shape(image.shape, index)
        out[...] = image

    def _check_shape(self, shape: tuple[int, ...], index: int) -> None:
        if tuple(shape) == self.shape:
            return
        height, width, channels = self.shape
        if channels_first(shape):
            raise UserError(
                f"{self.source.describe(int(index))}: the image is {'x'.join(map(str, shape))}, with its {shape[0]} "
                "channels first (NCHW); expected height x width x channels (NHWC). Store images.transpose(0, 2, 3, 1)."
            )
        mend = (
            f'put {{"kind": "resize"}} (or a crop) into data.ops, or set image_size={tuple(shape[:2])}'
            if tuple(shape[:2]) != (height, width)
            else f'put {{"kind": "decode", "channels": {channels}}} first in data.ops, or set channels={shape[-1]}'
        )
        raise UserError(
            f"{self.source.describe(int(index))}: the image is {'x'.join(map(str, shape))} after the ops, but "
            f"image_size and channels say {height}x{width}x{channels}. To mend it, {mend}."
        )

    def _check_labels(self, labels: np.ndarray, indices: np.ndarray) -> None:
        # On the host: on the device such a label gives NaN, or silently counts from the end.
        limit = np.inf if self.num_classes is None else self.num_classes
        if labels.min() >= 0 and labels.max() < limit:
            return
        wrong = np.flatnonzero((labels < 0) | (labels >= limit))
        label, index = int(labels[wrong[0]]), int(indices[wrong[0]])
        names = getattr(self.source, "class_names", None)
        name = f' ("{names[label]}")' if names and 0 <= label < len(names) else ""
        has = f" The source has {len(names)} classes: set num_classes={len(names)}." if names else ""
        raise UserError(
            f"{self.source.describe(index)} has label {label}{name}, but num_classes={self.num_classes}: labels must "
            f"be 0 to num_classes - 1.{has}"
        )


def _streams(ops: Iterable[Any]) -> list[tuple[str, Any]]:
    """Names each op's random stream by its kind and how many of that kind come before."""
    seen: collections.Counter[str] = collections.Counter()
    named = []
    for op in ops:
        kind = _KINDS.get(type(op), type(op).__name__)
        named.append((f"{kind}/{seen[kind]}", op))
        seen[kind] += 1
    return named


def _fused(named: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Joins a leading decode with the op after it; the stream is that op's."""
    if len(named) > 1 and isinstance(named[0][1], Decode):
        (_, decode), (stream, then), *rest = named
        return [(stream, DecodeThen(decode, then)), *rest]
    return named
