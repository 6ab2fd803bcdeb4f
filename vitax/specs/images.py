"""``data`` of a recipe: what it states, and the live source and pipeline."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from vitax.construct import check, construct, fields_of
from vitax.core.bounds import NotNegative, Positive
from vitax.core.errors import UserError, pick, suggest
from vitax.core.types import DataSource
from vitax.data.image_ops import OPS
from vitax.data.pipeline import Pipeline
from vitax.data.sources import SOURCES


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """``data`` of a recipe (and of an evaluator, whose missing fields come from it).

    Attributes:
      source: spec of a data source.
      num_examples: stated here so that plans never open data; checked at training.
      num_classes: of the labels.
      image_size: (height, width) of the images after ``ops``, or one number.
      channels: of the images.
      ops: specs of image ops, in order; an op whose ``size`` is left out makes images
        of ``image_size``.
      batch_size: examples a step, over all devices.
      shuffle: a new permutation each epoch.
      seed: of order and augmentation; the recipe's ``seed`` if left out.
      threads: that decode; as many as there are cores if left out.
      prefetch: batches made ahead.
      soft_labels: batches also hold ``target``, float32 [B, classes]: probabilities where
        the source knows them (pseudo-labels), 1 at the label elsewhere.
    """

    SHARED: ClassVar = ("num_classes", "image_size", "channels", "batch_size", "threads", "prefetch")

    source: Mapping[str, Any]
    num_examples: Positive
    num_classes: Positive
    image_size: Positive | tuple[Positive, Positive]
    channels: Positive = 3
    ops: tuple[Any, ...] = ()
    batch_size: Positive = 512
    shuffle: bool = True
    seed: NotNegative | None = None
    threads: Positive | None = None
    prefetch: Positive = 2
    soft_labels: bool = False

    # Batches of images have one size from the first step.
    ramp: ClassVar[None] = None

    @property
    def size(self) -> tuple[int, int]:
        return (self.image_size,) * 2 if isinstance(self.image_size, int) else self.image_size

    @property
    def given(self) -> dict[str, Any]:
        """Fields of models and objectives that the data decide."""
        return {"num_classes": self.num_classes, "image_size": self.size}

    @property
    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a global batch."""
        b = self.batch_size
        target = jax.ShapeDtypeStruct((b, self.num_classes), np.float32)
        return {
            "image": jax.ShapeDtypeStruct((b, *self.size, self.channels), np.uint8),
            "label": jax.ShapeDtypeStruct((b,), np.int32),
            "mask": jax.ShapeDtypeStruct((b,), np.bool_),
            "index": jax.ShapeDtypeStruct((b,), np.int32),
            **({"target": target} if self.soft_labels else {}),
        }

    def check(self, where: str) -> None:
        """Checks ops and source without opening anything.

        Raises:
          UserError: an unknown kind or field.
        """
        self.build_ops(where)
        check_source(self.source, f"{where}.source")

    def build_source(self, where: str = "data") -> DataSource:
        """Opens the source and checks what the recipe states about it."""
        source = self.open(self.source, f"{where}.source", num_examples=self.num_examples)
        if len(source) != self.num_examples:
            raise UserError(
                f"{where}.num_examples: the recipe states {self.num_examples}, the source holds {len(source)}. "
                f"Set --config.{where}.num_examples={len(source)} (schedules in epochs follow it)."
            )
        names = getattr(source, "class_names", None)
        if names and len(names) != self.num_classes:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise UserError(
                f"{where}.num_classes: the recipe states {self.num_classes}, the source has {len(names)} classes "
                f"({shown}). Set --config.data.num_classes={len(names)}."
            )
        return source

    def open(self, spec: Mapping[str, Any], where: str, **given: Any) -> Any:
        """A live source from its spec, and before it those that it is made of."""
        plain = dict(spec)
        if "source" in plain:
            plain["source"] = self.open(plain["source"], f"{where}.source")
        if "sources" in plain:
            plain["sources"] = {n: self.open(s, f"{where}.sources.{n}") for n, s in plain["sources"].items()}
        given |= {"num_classes": self.num_classes, "image_size": self.size, "channels": self.channels}
        return construct(SOURCES, plain, where, **given)

    def build_ops(self, where: str = "data") -> list[Any]:
        """The image ops, with ``image_size`` where an op's size is left out."""
        return [
            construct(OPS, spec, f"{where}.ops.{i}", size=self.size, channels=self.channels)
            for i, spec in enumerate(self.ops)
        ]

    def pipeline(
        self,
        seed: int,
        where: str = "data",
        source: DataSource | None = None,
        process: tuple[int, int] | None = None,
    ) -> Pipeline:
        """The pipeline of a process (index, count), by default this one, over a source that is open or one it opens."""
        index, count = process or (jax.process_index(), jax.process_count())
        return Pipeline(
            self.build_source(where) if source is None else source,
            self.build_ops(where),
            batch_size=self.batch_size,
            seed=seed if self.seed is None else self.seed,
            shuffle=self.shuffle,
            num_classes=self.num_classes,
            image_size=self.size,
            channels=self.channels,
            threads=self.threads,
            prefetch=self.prefetch,
            soft_labels=self.soft_labels,
            process_index=index,
            process_count=count,
        )


def check_source(source: Any, where: str) -> None:
    """Checks kinds and field names of a source, and of those in it, without opening any.

    Raises:
      UserError: an unknown kind or field.
    """
    if not isinstance(source, Mapping):
        raise UserError(f"{where}: expected a source with a `kind`, got {source!r}.")
    target = pick(SOURCES, source.get("kind", ""), f"{where}.kind")
    fields = fields_of(target)
    for key, value in source.items():
        if key != "kind" and key not in fields:
            raise UserError(f"{where}.{key}: unknown field.{suggest(key, fields)} Valid: {', '.join(sorted(fields))}.")
        if key == "source":
            check_source(value, f"{where}.source")
        elif key == "sources":
            for name, inner in check(value, Mapping, f"{where}.sources").items():
                check_source(inner, f"{where}.sources.{name}")
