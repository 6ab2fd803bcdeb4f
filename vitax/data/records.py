"""Prepared TensorFlow Datasets in ArrayRecord (or Parquet) files, read without TensorFlow."""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import numpy as np

from vitax.core.errors import UserError

# np.uint8 images come decoded where a feature is a plain tensor; Image features
# travel as bytes and are decoded by the ops, several at a time.


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A split of a data set prepared by ``tensorflow_datasets`` with ``file_format="array_record"``.

    Attributes:
      name: e.g. ``cifar10``, ``imagenet2012:5.1.0`` or ``my_dataset/config``; or empty where
        ``data_dir`` is itself the prepared folder (the one with ``dataset_info.json``).
      split: with TFDS' own slices: ``train[:90%]``, ``train+test``, ``train[100:200]``.
      data_dir: where data sets lie prepared; None for TFDS' default (``~/tensorflow_datasets``).
      features: that it must have.
      fields: of the source that name the features, for messages.
    """

    name: str
    split: str
    data_dir: str | None
    features: tuple[str, ...]
    fields: str

    def _how_to_prepare(self, directory: str) -> str:
        return (
            "Prepare it once with:\n"
            f"  python -c \"import tensorflow_datasets as tfds; tfds.builder('{self.name or 'NAME'}', "
            f"data_dir='{directory}', file_format='array_record').download_and_prepare()\"\n"
            "(that step needs `pip install tensorflow` for most data sets; vitax then reads it without), or convert "
            "an existing copy with:\n"
            "  tfds convert_format --dataset_dir=PREPARED_DIR --out_dir=NEW_DIR --out_file_format=array_record"
        )

    @functools.cached_property
    def builder(self) -> Any:
        os.environ.setdefault("TFDS_DISABLE_WARNINGS", "1")
        import tensorflow_datasets as tfds

        directory = None if self.data_dir is None else pathlib.Path(self.data_dir).expanduser()
        if directory is not None and not directory.is_dir():
            raise UserError(
                f"tfds: no folder {self.data_dir} (looked from {os.getcwd()}). Expected a TFDS data folder. "
                + self._how_to_prepare(str(self.data_dir))
            )
        if directory is not None and (directory / "dataset_info.json").is_file():
            return tfds.builder_from_directory(directory)
        where = str(directory or "~/tensorflow_datasets")
        if not self.name:
            raise UserError(
                f"tfds: no name, and {where} has no dataset_info.json. Give the name of a data set, or as data_dir "
                f"the prepared folder NAME/VERSION itself. {self._how_to_prepare(where)}"
            )
        try:
            # A prepared copy is found by its files; the code of the builder is not needed.
            return tfds.builder(self.name, data_dir=directory, try_gcs=False)
        except Exception as error:
            reason = str(error).strip().splitlines()
            raise UserError(
                f'tfds: cannot find "{self.name}" in {where} ({reason[0] if reason else type(error).__name__}). '
                + self._how_to_prepare(where)
            ) from error

    @functools.cached_property
    def data(self) -> Any:
        """Random access to the records, images as bytes."""
        import tensorflow_datasets as tfds

        builder = self.builder
        where = str(builder.data_path)
        if not builder.info.splits:
            raise UserError(
                f"tfds: {where} is not prepared. {self._how_to_prepare(self.data_dir or '~/tensorflow_datasets')}"
            )
        for feature in self.features:
            if feature not in builder.info.features:
                raise UserError(
                    f'tfds: {self.name or where} has no feature "{feature}"; it has '
                    f"{', '.join(sorted(builder.info.features))}. Set {self.fields}."
                )
        images = [f for f in self.features if isinstance(builder.info.features[f], tfds.features.Image)]
        decoders = {feature: tfds.decode.SkipDecoding() for feature in images}
        try:
            return builder.as_data_source(self.split, decoders=decoders)
        except NotImplementedError as error:
            raise UserError(
                f"tfds: {where} is prepared as {builder.info.file_format.value}, which allows no random access. "
                + self._how_to_prepare(self.data_dir or "~/tensorflow_datasets")
            ) from error
        except (ValueError, KeyError) as error:
            raise UserError(
                f'tfds: cannot read split "{self.split}" of {self.name or where} '
                f"({str(error).strip().splitlines()[0]}). It has {', '.join(sorted(builder.info.splits))}."
            ) from error


@dataclasses.dataclass(frozen=True)
class Tfds:
    """A data set of images prepared by ``tensorflow_datasets`` with ``file_format="array_record"``.

    Attributes:
      name: as of ``Prepared``.
      split: likewise.
      data_dir: likewise.
      image_key: feature that holds the image.
      label_key: feature that holds the integer label, or a list of all labels that are
        right (``real_label`` of ``imagenet2012_real``): the first is then the label, 0
        where there is none, and ``targets`` has them all.
    """

    name: str = ""
    split: str = "train"
    data_dir: str | None = None
    image_key: str = "image"
    label_key: str = "label"

    @functools.cached_property
    def _prepared(self) -> Prepared:
        keys = (self.image_key, self.label_key)
        return Prepared(self.name, self.split, self.data_dir, keys, "image_key and label_key")

    @property
    def _builder(self) -> Any:
        return self._prepared.builder

    @property
    def _data(self) -> Any:
        return self._prepared.data

    @property
    def class_names(self) -> tuple[str, ...] | None:
        feature = self._builder.info.features[self.label_key]
        names = getattr(getattr(feature, "feature", feature), "names", None)
        return None if names is None else tuple(names)

    def __len__(self) -> int:
        return len(self._data)

    def _example(self, record: dict[str, Any]) -> dict[str, Any]:
        labels = np.ravel(record[self.label_key])
        return {"image": record[self.image_key], "label": int(labels[0]) if len(labels) else 0}

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._example(self._data[int(index)])

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [self._example(record) for record in self._data.__getitems__([int(i) for i in indices])]

    def targets(self, indices: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """float32 [B, num_classes]: 1 at every right label. Reads the records once more: they are few."""
        rows = np.zeros((len(indices), num_classes), np.float32)
        for row, record in zip(rows, self._data.__getitems__([int(i) for i in indices])):
            row[np.ravel(record[self.label_key]).astype(np.int64)] = 1.0
        return rows

    def describe(self, index: int) -> str:
        return f"example {index} of tfds {self._builder.info.full_name} {self.split}"

    def fingerprint(self) -> dict[str, Any]:
        return {
            "kind": "tfds",
            "name": self._builder.info.full_name,
            "split": self.split,
            "image_key": self.image_key,
            "label_key": self.label_key,
            "num_examples": len(self),
        }
