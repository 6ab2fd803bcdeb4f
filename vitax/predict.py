"""``vitax predict``: image files through a checkpoint, in batches, in the order they were given."""

import collections
import csv
import dataclasses
import functools
import glob
import io
import json
import pathlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TextIO

import jax
import numpy as np

from vitax import infer
from vitax.construct import construct
from vitax.core.errors import UserError, suggest
from vitax.core.types import ModelOutput, TrainState
from vitax.data.folder import SUFFIXES
from vitax.data.image_files import load_image
from vitax.data.image_ops import OPS
from vitax.evaluators.classification import make_forward
from vitax.recipe import Recipe
from vitax.specs.images import DataSpec
from vitax.specs.kinds import evaluator_data
from vitax.train.program import Program

FORMATS = ("text", "json", "jsonl", "csv")


def expand(paths: Sequence[str]) -> list[str]:
    """Files, folders (all images in them, sorted) and globs -> files, in the order given, each once.

    Raises:
      UserError: a path that is not there, or a folder or glob without images.
    """
    files: dict[str, None] = {}
    for path in paths:
        plain = pathlib.Path(path).expanduser()
        if plain.is_file():
            found = [path]
        elif plain.is_dir():
            found = sorted(str(p) for p in plain.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not found:
                raise UserError(f"{path}: no images ({', '.join(SUFFIXES)}) in this folder.")
        elif glob.has_magic(path):
            found = sorted(p for p in glob.glob(str(plain), recursive=True) if pathlib.Path(p).is_file())
            if not found:
                raise UserError(f"{path}: no file matches. Folders are searched with **, as in 'photos/**/*.jpg'.")
        else:
            beside = [p.name for p in plain.parent.iterdir()] if plain.parent.is_dir() else []
            raise UserError(f"No such image file: {path}.{suggest(plain.name, beside)}")
        files.update(dict.fromkeys(found))
    return list(files)


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A checkpoint that is ready to classify.

    Attributes:
      recipe, program, state: of the checkpoint.
      names: of the classes.
    """

    recipe: Recipe
    program: Program
    state: TrainState
    names: tuple[str, ...]

    @classmethod
    def load(cls, checkpoint: str, overrides: Sequence[str] = (), without_head: bool = False) -> "Predictor":
        """Loads a checkpoint.

        Args:
          checkpoint: ``DIR``, ``DIR@STEP`` or a published weight file.
          overrides: ``--config.path=value``.
          without_head: take models too that give features alone.

        Raises:
          UserError: a bad checkpoint, or a model without a head.
        """
        recipe, program, state, metadata = infer.load(checkpoint, overrides)
        infer.check_images(recipe, checkpoint)
        if not without_head:
            infer.check_head(recipe, checkpoint)
        names = metadata.get("class_names") or [str(i) for i in range(recipe.data.num_classes)]
        return cls(recipe, program, state, tuple(names))

    @functools.cached_property
    def spec(self) -> DataSpec:
        """How images are prepared: as to evaluate, or else to train."""
        evaluators = self.recipe.config.get("evaluators")
        return evaluator_data(self.recipe.config, next(iter(evaluators))) if evaluators else self.recipe.data

    @functools.cached_property
    def _ops(self) -> list[Any]:
        spec = self.spec
        return [
            construct(OPS, op, f"data.ops.{i}", size=spec.size, channels=spec.channels)
            for i, op in enumerate(spec.ops)
            if op["kind"] != "decode"
        ]

    def prepare(self, file: str) -> np.ndarray | UserError:
        """uint8 [H, W, C] as the model takes it, or why there is none."""
        spec = self.spec
        try:
            image = load_image(file, channels=spec.channels)
        except UserError as error:
            return error
        for op in self._ops:
            image = op(image, np.zeros(op.uniforms))
        if image.shape != (*spec.size, spec.channels):
            # Raw files come in any size, also for recipes whose data needs no resizing.
            image = construct(OPS, {"kind": "resize"}, "predict", size=spec.size)(image, np.zeros(0))
        return image.reshape(*spec.size, spec.channels)

    def batch(self, images: Sequence[np.ndarray], size: int) -> dict[str, Any]:
        """A global batch of ``size`` examples, filled up with zeros under mask False."""
        spec = self.spec
        pixels = np.zeros((size, *spec.size, spec.channels), np.uint8)
        pixels[: len(images)] = images
        zeros = np.zeros(size, np.int32)
        batch = {"image": pixels, "label": zeros, "index": zeros, "mask": np.arange(size) < len(images)}
        return dict(self.program.put(batch))

    def classify(self, files: Sequence[str], batch_size: int) -> Iterator[tuple[str, Any, Any]]:
        """Yields (file, float32 probabilities [classes], float32 features [D]) in the order of the files.

        A file that cannot be read yields (file, UserError, None). The next batch is read
        by threads while the devices work on one.
        """
        ways = self.program.rules.batch_ways(self.program.mesh)
        batch_size = -(-min(batch_size, len(files)) // ways) * ways
        forward = make_forward(self.program, _probabilities_and_features)
        chunks = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
        with ThreadPoolExecutor(thread_name_prefix="images") as pool:
            waiting: collections.deque[list[Future[Any]]] = collections.deque()
            for chunk in chunks[:2]:
                waiting.append([pool.submit(self.prepare, file) for file in chunk])
            for number, chunk in enumerate(chunks):
                images = [future.result() for future in waiting.popleft()]
                if number + 2 < len(chunks):
                    waiting.append([pool.submit(self.prepare, file) for file in chunks[number + 2]])
                good = [x for x in images if not isinstance(x, UserError)]
                rows: Iterator[tuple[Any, Any]] = iter(())
                if good:
                    out = forward(self.state.params, self.state.mutables, self.batch(good, batch_size))
                    rows = zip(*(np.asarray(x, np.float32)[: len(good)] for x in out))
                for file, image in zip(chunk, images):
                    yield (file, image, None) if isinstance(image, UserError) else (file, *next(rows))

    def row(self, file: str, probabilities: np.ndarray, topk: int) -> dict[str, Any]:
        """``{"file", "topk": [{"label", "index", "probability"}, ...]}``, the likeliest first."""
        best = np.argsort(-probabilities, kind="stable")[: min(topk, len(self.names))]
        return {
            "file": file,
            "topk": [{"label": self.names[i], "index": int(i), "probability": float(probabilities[i])} for i in best],
        }


def _probabilities_and_features(output: ModelOutput) -> tuple[jax.Array, Any]:
    if output.logits is None:  # features alone
        return output.features[:, :0], output.features  # type: ignore[index]
    return jax.nn.softmax(output.logits.astype(np.float32)), output.features


class Writer:
    """Rows as ``text``, ``json`` (one array), ``jsonl`` (a line each) or ``csv`` (a line a guess)."""

    def __init__(self, stream: TextIO, form: str):
        self._stream, self._form, self._count = stream, form, 0
        if form == "csv":
            self._stream.write("file,rank,label,index,probability\n")

    def write(self, row: dict[str, Any]) -> None:
        """Writes a row at once, so that a long list can be watched and cut short."""
        if self._form == "text":
            guesses = ", ".join(f"{k['label']} {k['probability']:.3f}" for k in row["topk"])
            self._stream.write(f"{row['file']}: {guesses}\n")
        elif self._form == "csv":
            text = io.StringIO()
            lines = [
                (row["file"], rank, k["label"], k["index"], f"{k['probability']:.6g}")
                for rank, k in enumerate(row["topk"], start=1)
            ]
            csv.writer(text, lineterminator="\n").writerows(lines)
            self._stream.write(text.getvalue())
        else:
            opening = ("[" if self._count == 0 else ", ") if self._form == "json" else ""
            self._stream.write(opening + json.dumps(row) + ("" if self._form == "json" else "\n"))
        self._count += 1

    def close(self) -> None:
        """Ends the output (not the stream)."""
        if self._form == "json":
            self._stream.write("]\n" if self._count else "[]\n")
        self._stream.flush()


def chosen_format(asked: str | None, as_json: bool, output: pathlib.Path | None) -> str:
    """The format asked for, else what the ending of the output file says, else text."""
    if as_json and asked not in (None, "json"):
        raise UserError(f"predict: both --json and --format {asked} given; expected one of them.")
    ending = output.suffix.lower().removeprefix(".") if output else ""
    form = "json" if as_json else asked or (ending if ending in FORMATS else "text")
    if form not in FORMATS:
        raise UserError(f'--format: unknown name "{form}".{suggest(form, FORMATS)} Valid: {", ".join(FORMATS)}.')
    return form


def check_target(option: str, path: pathlib.Path | None, endings: Sequence[str] = ()) -> None:
    """Refuses a file that could not be written in the end, before anything is computed."""
    if path is None:
        return
    if endings and path.suffix.lower() not in endings:
        raise UserError(f"{option} {path}: expected a file name that ends in {' or '.join(endings)}.")
    if path.is_dir() or not path.absolute().parent.is_dir():
        what = "is a folder" if path.is_dir() else f"there is no folder {path.absolute().parent}"
        raise UserError(f"{option} {path}: {what}; expected a file to write.")


def save_features(path: pathlib.Path, files: Sequence[str], features: Sequence[np.ndarray]) -> None:
    """``files`` (str [N]) and ``features`` (float32 [N, D], what the head sees) as NumPy's .npz."""
    with path.open("wb") as file:
        np.savez(file, files=np.array(files, str), features=np.stack(features))
