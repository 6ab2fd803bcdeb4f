"""Fine-tuning of an encoder of text: a class or a number a text, and the span of an answer."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitax.core.errors import UserError
from vitax.core.metrics import Mean
from vitax.core.types import Batch, LossOutput, ModelOutput, PyTree
from vitax.objectives import losses
from vitax.objectives.keys import of_examples


def check_head(model: Any, wanted: str, where: str) -> None:
    """Refuses a model whose ``head`` is for another task.

    Raises:
      UserError: says which field decided on the task.
    """
    head = getattr(model, "head", wanted)
    if head != wanted:
        raise UserError(f'model.head: "{head}", but {where} asks for "{wanted}". Set --config.model.head={wanted}.')


@dataclasses.dataclass(frozen=True)
class OfText:
    """What objectives of an encoder of text share.

    Attributes:
      model: a module whose ``apply(variables, tokens, segment_ids=, token_types=, train=,
        rng=)`` returns a ``ModelOutput``.
    """

    model: nn.Module

    def init(self, rng: jax.Array, batch: Batch) -> PyTree:
        """The model's variables for sequences of this batch's length."""
        return self.model.init(rng, jnp.zeros((1, batch["tokens"].shape[1]), jnp.int32))

    def prepare(self, batch: Batch, rng: jax.Array, *, train: bool) -> Batch:
        """Nothing: tokens are ready as they come."""
        return batch

    def forward(self, variables: PyTree, batch: Batch, rng: jax.Array | None = None, **options: Any) -> ModelOutput:
        """The model on a batch; ``rng`` turns dropout on, keyed per example."""
        keys = of_examples(rng, batch)
        options |= {"train": rng is not None, "rng": keys}
        options |= {name: batch[name] for name in ("segment_ids", "token_types")}
        return self.model.apply(variables, batch["tokens"], **options)  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True)
class TextClassification(OfText):
    """The class of a text or of a pair, by cross-entropy; with one class a number, by its squared error.

    Attributes:
      num_classes: of the labels; 1 for regression.
    """

    num_classes: int = 2

    def __post_init__(self) -> None:
        check_head(self.model, "classification", "data.source.kind")

    def loss_per_example(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """float32 [B] of logits [B, num_classes] and labels [B]."""
        if self.num_classes == 1:
            return jnp.square(logits[:, 0].astype(jnp.float32) - label)
        return losses.softmax_cross_entropy(logits, label)

    def loss(self, variables: PyTree, batch: Batch, rng: jax.Array, *, train: bool) -> LossOutput:
        """The mean over examples, and ``accuracy`` of classes."""
        logits = self.forward(variables, batch, rng if train else None).logits
        assert logits is not None
        label, mask = batch["label"], batch["mask"]
        measured = {}
        if self.num_classes > 1:
            measured["accuracy"] = Mean.of(logits.argmax(-1) == label, mask)
        return LossOutput(loss=Mean.of(self.loss_per_example(logits, label), mask), metrics=measured)


@dataclasses.dataclass(frozen=True)
class Span(OfText):
    """Where an answer starts and where it ends: the mean of two cross-entropies over the tokens of a window.

    A window without the answer has both at ``[CLS]``. Padding takes no probability.

    Reference: Devlin et al., arXiv:1810.04805, section 4.2 and 4.3. The authors' code lets
    padding take part in the softmax.
    """

    def __post_init__(self) -> None:
        check_head(self.model, "span", "data.source.kind")

    def loss(self, variables: PyTree, batch: Batch, rng: jax.Array, *, train: bool) -> LossOutput:
        """The mean over windows, and ``accuracy``: both ends right."""
        logits = self.span_logits(self.forward(variables, batch, rng if train else None), batch)
        per_end = [losses.softmax_cross_entropy(logits[..., i], batch[end]) for i, end in enumerate(("start", "end"))]
        right = [logits[..., i].argmax(-1) == batch[end] for i, end in enumerate(("start", "end"))]
        mask = batch["mask"]
        loss = Mean.of((per_end[0] + per_end[1]) / 2, mask)
        return LossOutput(loss=loss, metrics={"accuracy": Mean.of(right[0] & right[1], mask)})

    def span_logits(self, output: ModelOutput, batch: Batch) -> jax.Array:
        """float32 [B, T, 2] of start and end, padding at the least number."""
        assert output.logits is not None
        real = (batch["segment_ids"] > 0)[..., None]
        return jnp.where(real, output.logits.astype(jnp.float32), jnp.finfo(jnp.float32).min)
