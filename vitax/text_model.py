"""A BERT and its tokenizer at work: texts in, whatever is read of its outputs out."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vitax import config_files, published, recipe, run
from vitax.checkpoint.files import is_weight_file
from vitax.construct import construct
from vitax.core.errors import UserError
from vitax.core.types import ModelOutput
from vitax.data.tokenizers import TOKENIZERS, WordPiece
from vitax.models.table import MODELS
from vitax.published import Published
from vitax.train import terminal

_SMALLEST = 16
# Of a recipe's model: how a run computes, not what.
_RUN = ("dtype", "remat", "unroll")


class Input(NamedTuple):
    """One input of the model.

    Attributes:
      tokens: int32 [length], marks among them.
      types: int32 [length], 1 for the second text.
      cut: tokens of its texts that found no room.
    """

    tokens: np.ndarray
    types: np.ndarray
    cut: int = 0


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
          overrides: ``--config.path=value``, such as of ``data.tokenizer.path``.

        Raises:
          UserError: no such checkpoint, no BERT, or one without its tokenizer.
        """
        found = published.read(checkpoint).whole()
        kind = found.recipe["model"]["kind"]
        if kind != "bert":
            takes = "image files" if found.image_size is not None else "a prompt (vitax generate --prompt TEXT)"
            raise UserError(f"{checkpoint}: --text and --question are for a BERT; this {kind} takes {takes}.")
        plain = json.loads(json.dumps(found.recipe))
        for key, text in config_files.parse_overrides(overrides):
            config_files.override(plain, key, text)
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

    def input(self, first: np.ndarray, second: np.ndarray | None = None) -> Input:
        """``[CLS] first [SEP]``, or ``[CLS] first [SEP] second [SEP]``; the longer is cut until both fit.

        Args:
          first: ids of a text.
          second: ids of its pair.

        Reference: Devlin et al., arXiv:1810.04805, section 3; cut as in its code.
        """
        behind = np.zeros(0, np.int32) if second is None else second
        room = self.context - (2 if second is None else 3)
        lengths = [len(first), len(behind)]
        cut = max(0, sum(lengths) - room)
        for _ in range(cut):
            lengths[lengths[1] >= lengths[0]] -= 1
        cls, sep = self.tokenizer.cls_id, self.tokenizer.sep_id
        tokens = np.array([cls, *first[: lengths[0]], sep, *behind[: lengths[1]]], np.int32)
        tokens = tokens if second is None else np.append(tokens, np.int32(sep))
        return Input(tokens, (np.arange(len(tokens)) >= lengths[0] + 2).astype(np.int32), cut)

    def outputs(
        self, inputs: Sequence[Input], batch_size: int, read: Read, masked_positions: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """What ``read`` takes of the outputs for each input, in order, on the host.

        Args:
          inputs: of ``input``.
          batch_size: of them at a time.
          read: traced once a shape.
          masked_positions: int32 [inputs, M], of the model's call.
        """
        model, variables = self._model, self._variables

        @jax.jit
        def forward(variables: Any, tokens: Any, types: Any, segments: Any, masked: Any) -> Any:
            more = {} if masked is None else {"masked_positions": masked}
            return read(model.apply(variables, tokens, token_types=types, segment_ids=segments, **more), segments)

        for start in range(0, len(inputs), batch_size):
            chunk = inputs[start : start + batch_size]
            longest = max(len(one.tokens) for one in chunk)
            # A power of two: few shapes to compile.
            length = min(max(_SMALLEST, 1 << (longest - 1).bit_length()), self.context)
            tokens, types, segments = np.zeros((3, len(chunk), length), np.int32)
            tokens[:] = self.tokenizer.pad_id
            for row, one in enumerate(chunk):
                n = len(one.tokens)
                tokens[row, :n], types[row, :n], segments[row, :n] = one.tokens, one.types, 1
            masked = None if masked_positions is None else masked_positions[start : start + batch_size]
            yield from zip(*(np.asarray(x) for x in forward(variables, tokens, types, segments, masked)))

    @functools.cached_property
    def _model(self) -> Any:
        run.start_jax()
        fields = {k: v for k, v in self.found.recipe["model"].items() if k not in _RUN}
        return construct(MODELS, fields, "model", dtype=recipe.auto_dtype(jax.default_backend()))

    @functools.cached_property
    def _variables(self) -> Any:
        tree: dict[str, Any] = {}
        for name, value in self.found.params.items():
            *folders, leaf = name.split("/")
            node = tree
            for folder in folders:
                node = node.setdefault(folder, {})
            node[leaf] = jnp.asarray(np.asarray(value), jnp.float32)
        return {"params": tree}


def mean_of_tokens(output: ModelOutput, segments: Any) -> tuple[Any]:
    """Embeddings of unit length: the mean of the last hidden states over real tokens, float32 [B, D].

    Reference: Reimers and Gurevych, arXiv:1908.10084, section 3 (mean pooling).
    """
    real = (segments > 0)[:, :, None]
    total = jnp.where(real, output.features.astype(jnp.float32), 0.0).sum(1)  # type: ignore[union-attr]
    return (total / jnp.maximum(jnp.linalg.norm(total, axis=-1, keepdims=True), 1e-12),)
