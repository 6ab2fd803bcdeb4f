"""Next-token prediction as an objective."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitax.core.metrics import Mean
from vitax.core.types import Batch, LossOutput, ModelOutput, PyTree
from vitax.objectives.keys import of_examples
from vitax.objectives.losses_chunked import token_cross_entropy


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """Predicts each token from those before it in its document.

    Attributes:
      model: a module whose ``apply(variables, tokens, segment_ids=, train=, rng=, return_logits=)``
        returns a ``ModelOutput`` with features [B, T, D], and whose ``output_table(variables)``
        [V, D] makes logits of them.
      vocab_size: V.
      label_smoothing: weight of the uniform target, in training only.
    """

    model: nn.Module
    vocab_size: int
    label_smoothing: float = 0.0

    def init(self, rng: jax.Array, batch: Batch) -> PyTree:
        """The model's variables for windows of this batch's length."""
        return self.model.init(rng, jnp.zeros((1, batch["tokens"].shape[1]), jnp.int32))

    def prepare(self, batch: Batch, rng: jax.Array, *, train: bool) -> Batch:
        """Nothing: tokens are ready as they come."""
        return batch

    def forward(self, variables: PyTree, batch: Batch, rng: jax.Array | None = None, **options: Any) -> ModelOutput:
        """The model on a batch; ``rng`` turns dropout on, keyed per example."""
        keys = of_examples(rng, batch)
        options |= {"segment_ids": batch["segment_ids"], "train": rng is not None, "rng": keys}
        return self.model.apply(variables, batch["tokens"], **options)  # type: ignore[return-value]

    def counted(self, batch: Batch) -> jax.Array:
        """bool [B, T]: the targets that count: not padding, and where there is a ``loss_mask`` what it says."""
        counted = (batch["segment_ids"] > 0) & batch["mask"][:, None]
        return counted & batch["loss_mask"] if "loss_mask" in batch else counted

    def loss(self, variables: PyTree, batch: Batch, rng: jax.Array, *, train: bool) -> LossOutput:
        """Cross-entropy in nats and accuracy, both means over tokens."""
        output = self.forward(variables, batch, rng if train else None, return_logits=False)
        smoothing = self.label_smoothing if train else 0.0
        table = self.model.output_table(variables)
        assert output.features is not None
        nats, correct = token_cross_entropy(output.features, table, None, batch["targets"], smoothing)
        counted = self.counted(batch)
        return LossOutput(loss=Mean.of(nats, counted), metrics={"accuracy": Mean.of(correct, counted)})
