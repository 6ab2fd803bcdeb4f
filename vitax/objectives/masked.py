"""Prediction of masked tokens, and of whether one sentence follows the other."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vitax.core.metrics import Mean
from vitax.core.types import Batch, LossOutput, ModelOutput, PyTree
from vitax.objectives import losses
from vitax.objectives.losses_chunked import token_cross_entropy
from vitax.objectives.text import OfText, check_head


@dataclasses.dataclass(frozen=True)
class MaskedLanguageModel(OfText):
    """The mean over masked tokens, plus the mean over examples of the next-sentence loss where it is predicted.

    The two means have different weights, so their sum is no ``Mean`` of its own. It is
    made one over examples: ``prepare`` sees the whole batch and gives each masked token
    the weight (examples of the batch) / (masked tokens of the batch). The loss of an
    example is then the weighted sum over its tokens plus its next-sentence loss, and
    the mean over examples is the sum of the two means exactly, whatever the microbatches.

    Attributes:
      model: a module whose ``apply(variables, tokens, segment_ids=, token_types=,
        masked_positions=, train=, rng=, return_logits=)`` returns a ``ModelOutput`` with
        ``intermediates["masked"]`` [B, M, D] and, where next sentences are predicted,
        ``["next_sentence"]`` [B, 2]; its ``output_layer(variables)``, [V, D] and [V], makes
        logits of the former.
      next_sentence: whether batches have ``next_sentence``.

    Reference: Devlin et al., arXiv:1810.04805, appendix A.2.
    """

    next_sentence: bool = True

    def __post_init__(self) -> None:
        check_head(self.model, "pretraining" if self.next_sentence else "mlm", "data.next_sentence")

    def prepare(self, batch: Batch, rng: jax.Array, *, train: bool) -> Batch:
        """Adds ``token_weight`` float32 [B, M]; see the class."""
        weights = batch["masked_weights"] * batch["mask"][:, None]
        examples = batch["mask"].sum().astype(jnp.float32)
        return {**batch, "token_weight": weights * examples / jnp.maximum(weights.sum(), 1.0)}

    def forward(self, variables: PyTree, batch: Batch, rng: jax.Array | None = None, **options: Any) -> ModelOutput:
        """The model on a batch; ``rng`` turns dropout on, keyed per example."""
        return super().forward(variables, batch, rng, masked_positions=batch["masked_positions"], **options)

    def loss(self, variables: PyTree, batch: Batch, rng: jax.Array, *, train: bool) -> LossOutput:
        """The sum of both losses in nats; each, and the accuracies, as metrics of their own weights."""
        output = self.forward(variables, batch, rng if train else None, return_logits=False)
        mask = batch["mask"]
        counted = (batch["masked_weights"] > 0) & mask[:, None]
        model: Any = self.model
        table, bias = model.output_layer(variables)
        per_token, correct = token_cross_entropy(output.intermediates["masked"], table, bias, batch["masked_targets"])
        measured = {"masked_loss": Mean.of(per_token, counted), "accuracy": Mean.of(correct, counted)}
        per_example = (per_token * batch["token_weight"]).sum(-1)
        if self.next_sentence:
            logits = output.intermediates["next_sentence"]
            follows = losses.softmax_cross_entropy(logits, batch["next_sentence"])
            measured["next_sentence_loss"] = Mean.of(follows, mask)
            measured["next_sentence_accuracy"] = Mean.of(logits.argmax(-1) == batch["next_sentence"], mask)
            per_example = per_example + follows
        return LossOutput(loss=Mean.of(per_example, mask), metrics=measured)
