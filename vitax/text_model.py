"""A BERT and its tokenizer at work: texts in, whatever is read of its outputs out."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from vitax import config_files, recipe, run
from vitax.checkpoint.files import is_weight_file
from vitax.construct import construct
from vitax.core.errors import UserError
from vitax.core.types import ModelOutput
from vitax.data.labelled_text_pipeline import padded
from vitax.data.tokenizers import TOKENIZERS, WordPiece
from vitax.models.table import MODELS
from vitax.train import terminal
from vitax.weights import reading
from vitax.weights.reading import RUN_FIELDS, Published

_SMALLEST = 16
# Parts of a recipe that are read here, and may be overridden.
_READ = ("data.tokenizer", "dtype", "model")

# Token ids of one or two texts, without marks.
Row = tuple[np.ndarray, ...]
# (output, segment_ids int32 [B, T]) -> arrays with axis 0 = input.
Read = Callable[[ModelOutput, Any], tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class TextModel:
    """A BERT with its tokenizer, on the first device.

    Attributes:
      found: the checkpoint.
      tokenizer: with the marks of BERT.
    """

    found: Published
    tokenizer: WordPiece

    @classmethod
    def load(cls, checkpoint: str, overrides: Sequence[str] = ()) -> "TextModel":
        """Loads a checkpoint.

        Args:
          checkpoint: ``DIR``, ``DIR@STEP`` or a published weight file.
          overrides: ``--config.path=value`` of ``data.tokenizer``, ``dtype`` or ``model``.

        Raises:
          UserError: no such checkpoint, no BERT, one without its tokenizer, or an override
            that nothing reads.
        """
        found = reading.read(checkpoint).whole()
        kind = found.recipe["model"]["kind"]
        if kind != "bert":
            takes = "image files" if found.image_size is not None else "a prompt (vitax generate --prompt TEXT)"
            raise UserError(f"{checkpoint}: --text and --question are for a BERT; this {kind} takes {takes}.")
        plain = json.loads(json.dumps(found.recipe))
        for key, text in config_files.parse_overrides(overrides):
            read = f"{key}.".startswith(tuple(f"{name}." for name in _READ))
            if not read or key in [f"model.{name}" for name in RUN_FIELDS]:
                raise UserError(f"--config.{key}: predict reads {', '.join(_READ)} of the recipe alone. Leave it out.")
            config_files.override(plain, key, text)
        recipe.dtype_of(plain, "cpu")  # before a device is touched
        tokenizer = construct(TOKENIZERS, plain["data"].get("tokenizer") or {"kind": "bytes"}, "data.tokenizer")
        if not isinstance(tokenizer, WordPiece):
            raise UserError(f"{checkpoint}: data.tokenizer.kind: expected wordpiece, whose marks a BERT needs.")
        vocab_size = found.fields["vocab_size"]
        if tokenizer.vocab_size > vocab_size:
            raise UserError(
                f"{checkpoint}: the model has {vocab_size} token ids, its tokenizer {tokenizer.vocab_size}: it is "
                "another's. Give its own with --config.data.tokenizer.path=FILE."
            )
        if is_weight_file(checkpoint):
            for line in found.lines:
                terminal.console().print(line, markup=False)
        return cls(dataclasses.replace(found, recipe=plain), tokenizer)

    @property
    def head(self) -> str:
        """``head`` of the model."""
        return self.found.fields["head"]

    @property
    def context(self) -> int:
        """Tokens that an input can have."""
        return self.found.fields["context"]

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text without marks, int32 [tokens]."""
        return self.tokenizer.encode(text.encode()).astype(np.int32)

    def outputs(
        self, rows: Sequence[Row], batch_size: int, read: Read, masked_positions: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """What ``read`` takes of the outputs for each row, in order, on the host.

        Args:
          rows: that fit (``data.labelled_text_pipeline.fitted``).
          batch_size: of them at a time.
          read: traced once a shape.
          masked_positions: int32 [rows, M], of the model's call.
        """
        model, variables = self._model, self._variables

        @jax.jit
        def forward(variables: Any, batch: Mapping[str, Any]) -> Any:
            return read(model.apply(variables, **batch), batch["segment_ids"])

        for start in range(0, len(rows), batch_size):
            chunk = rows[start : start + batch_size]
            longest = max(1 + sum(len(ids) + 1 for ids in row) for row in chunk)
            # A power of two: few shapes to compile.
            length = min(max(_SMALLEST, 1 << (longest - 1).bit_length()), self.context)
            batch = padded(self.tokenizer, chunk, length)
            if masked_positions is not None:
                batch["masked_positions"] = masked_positions[start : start + batch_size]
            yield from zip(*(np.asarray(x) for x in forward(variables, batch)))

    @functools.cached_property
    def _model(self) -> Any:
        run.start_jax()
        fields = {k: v for k, v in self.found.recipe["model"].items() if k not in RUN_FIELDS}
        return construct(MODELS, fields, "model", dtype=recipe.dtype_of(self.found.recipe, jax.default_backend()))

    @functools.cached_property
    def _variables(self) -> Any:
        flat = {name: jnp.asarray(np.asarray(value), jnp.float32) for name, value in self.found.params.items()}
        return {"params": flax.traverse_util.unflatten_dict(flat, sep="/")}


def mean_of_tokens(output: ModelOutput, segments: Any) -> tuple[Any]:
    """Embeddings of unit length: the mean of the last hidden states over real tokens, float32 [B, D].

    Reference: Reimers and Gurevych, arXiv:1908.10084, section 3 (mean pooling).
    """
    real = (segments > 0)[:, :, None]
    total = jnp.where(real, output.features.astype(jnp.float32), 0.0).sum(1)  # type: ignore[union-attr]
    return (total / jnp.maximum(jnp.linalg.norm(total, axis=-1, keepdims=True), 1e-12),)
