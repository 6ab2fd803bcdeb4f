"""Prediction of masked tokens, and of whether one sentence follows the other."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitax.core.errors import UserError
from vitax.core.metrics import Mean
from vitax.core.types import Batch, LossOutput, ModelOutput, PyTree
from vitax.objectives import losses


def check_head(model: Any, wanted: str, where: str) -> None:
    """Refuses a model whose ``head`` is for another task.

    Raises:
      UserError: says which field decided on the task.
    """
    head = getattr(model, "head", wanted)
    if head != wanted:
        raise UserError(f'model.head: "{head}", but {where} asks for "{wanted}". Set --config.model.head={wanted}.')


@dataclasses.dataclass(frozen=True)
class MaskedLanguageModel:
    """The mean over masked tokens, plus the mean over examples of the next-sentence loss where it is predicted.

    The two means have different weights, so their sum is no ``Mean`` of its own. It is
    made one over examples: ``prepare`` sees the whole batch and gives each masked token
    the weight (examples of the batch) / (masked tokens of the batch). The loss of an
    example is then the weighted sum over its tokens plus its next-sentence loss, and
    the mean over examples is the sum of the two means exactly, whatever the microbatches.

    Attributes:
      model: a module whose ``apply(variables, tokens, segment_ids=, token_types=,
        masked_positions=, train=, rng=)`` returns a ``ModelOutput`` with logits [B, M, V]
        and, where next sentences are predicted, ``intermediates["next_sentence"]`` [B, 2].
      next_sentence: whether batches have ``next_sentence``.

    Reference: Devlin et al., arXiv:1810.04805, appendix A.2.
    """

    model: nn.Module
    next_sentence: bool = True

    def __post_init__(self) -> None:
        check_head(self.model, "pretraining" if self.next_sentence else "mlm", "data.next_sentence")

    def init(self, rng: jax.Array, batch: Batch) -> PyTree:
        """The model's variables for sequences of this batch's length."""
        return self.model.init(rng, jnp.zeros((1, batch["tokens"].shape[1]), jnp.int32))

    def prepare(self, batch: Batch, rng: jax.Array, *, train: bool) -> Batch:
        """Adds ``token_weight`` float32 [B, M]; see the class."""
        weights = batch["masked_weights"] * batch["mask"][:, None]
        examples = batch["mask"].sum().astype(jnp.float32)
        return {**batch, "token_weight": weights * examples / jnp.maximum(weights.sum(), 1.0)}

    def forward(self, variables: PyTree, batch: Batch, rng: jax.Array | None = None, **options: Any) -> ModelOutput:
        """The model on a batch; ``rng`` turns dropout on, keyed per example."""
        keys = None
        if rng is not None:
            keys = jax.vmap(functools.partial(jax.random.fold_in, rng))(batch["index"])
        options |= {"train": rng is not None, "rng": keys, "masked_positions": batch["masked_positions"]}
        options |= {name: batch[name] for name in ("segment_ids", "token_types")}
        return self.model.apply(variables, batch["tokens"], **options)  # type: ignore[return-value]

    def loss(self, variables: PyTree, batch: Batch, rng: jax.Array, *, train: bool) -> LossOutput:
        """The sum of both losses in nats; each, and the accuracies, as metrics of their own weights."""
        output = self.forward(variables, batch, rng if train else None)
        assert output.logits is not None
        mask = batch["mask"]
        counted = (batch["masked_weights"] > 0) & mask[:, None]
        per_token = losses.softmax_cross_entropy(output.logits, batch["masked_targets"])
        correct = output.logits.argmax(-1) == batch["masked_targets"]
        measured = {"masked_loss": Mean.of(per_token, counted), "accuracy": Mean.of(correct, counted)}
        per_example = (per_token * batch["token_weight"]).sum(-1)
        if self.next_sentence:
            logits = output.intermediates["next_sentence"]
            follows = losses.softmax_cross_entropy(logits, batch["next_sentence"])
            measured["next_sentence_loss"] = Mean.of(follows, mask)
            measured["next_sentence_accuracy"] = Mean.of(logits.argmax(-1) == batch["next_sentence"], mask)
            per_example = per_example + follows
        return LossOutput(loss=Mean.of(per_example, mask), metrics=measured)
