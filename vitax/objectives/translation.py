"""Translation, and whatever else turns one text into another, as an objective."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vitax.core.types import Batch, ModelOutput, PyTree
from vitax.objectives.keys import of_examples
from vitax.objectives.language import LanguageModel


@dataclasses.dataclass(frozen=True)
class Translation(LanguageModel):
    """Predicts each token of a target from those before it and from its source.

    Attributes:
      model: a module whose ``apply(variables, source, tokens, source_segments=, segment_ids=,
        train=, rng=, return_logits=)`` returns a ``ModelOutput`` with features [B, T, D], and
        whose ``output_table(variables)`` [V, D] makes logits of them.
      vocab_size: V.
      label_smoothing: weight of the uniform target, in training only (Vaswani et al.,
        arXiv:1706.03762, section 5.4: 0.1).
    """

    def init(self, rng: jax.Array, batch: Batch) -> PyTree:
        """The model's variables for rows of this batch's lengths."""
        source, tokens = (jnp.zeros((1, batch[name].shape[1]), jnp.int32) for name in ("source", "tokens"))
        return self.model.init(rng, source, tokens)

    def forward(self, variables: PyTree, batch: Batch, rng: jax.Array | None = None, **options: Any) -> ModelOutput:
        """The model on a batch; ``rng`` turns dropout on, keyed per example."""
        keys = of_examples(rng, batch)
        options |= {name: batch[name] for name in ("source_segments", "segment_ids")}
        options |= {"train": rng is not None, "rng": keys}
        return self.model.apply(variables, batch["source"], batch["tokens"], **options)  # type: ignore[return-value]
