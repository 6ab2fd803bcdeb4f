"""Image classification as an objective."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitax.core.metrics import Mean
from vitax.core.types import Batch, LossOutput, ModelOutput, PyTree
from vitax.objectives import losses, mixing
from vitax.objectives.keys import of_examples


@dataclasses.dataclass(frozen=True)
class Classification:
    """Softmax or sigmoid classification of images.

    Attributes:
      model: a module whose ``apply(variables, images, train=, rng=)`` returns a
        ``ModelOutput`` with logits [B, classes]; one with collections beside ``params``
        (running statistics) also takes ``mask=``, in training alone.
      num_classes: classes of the head.
      cross_entropy: ``softmax``, or ``sigmoid`` (one binary decision a class; the ViT paper's
        pre-training).
      label_smoothing: weight of the uniform target (softmax only).
      mixup: alpha of Beta(alpha, alpha); 0 turns it off.
      cutmix: the same for CutMix; with both, each batch draws one of them.
      mean: subtracted from pixels scaled to [0, 1], one a channel or one for all.
      std: divides after that. The default maps to [-1, 1], as ViT's weights expect.
    """

    model: nn.Module
    num_classes: int
    cross_entropy: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

    def scale(self, images: jax.Array) -> jax.Array:
        """uint8 [B, H, W, C] -> float32, normalised."""
        return (images.astype(jnp.float32) / 255.0 - jnp.asarray(self.mean)) / jnp.asarray(self.std)

    def init(self, rng: jax.Array, batch: Batch) -> PyTree:
        """The model's variables for images of this batch's shape."""
        # One example is enough for shapes, and keeps initialisation small.
        return self.model.init(rng, jnp.zeros((1, *batch["image"].shape[1:]), jnp.float32))

    def prepare(self, batch: Batch, rng: jax.Array, *, train: bool) -> Batch:
        """Scales images; in training mixes them, with targets float32 [B, classes]."""
        prepared: dict[str, Any] = {**batch, "image": self.scale(batch["image"])}
        if train and (self.mixup or self.cutmix):
            targets = batch.get("target")
            targets = jax.nn.one_hot(batch["label"], self.num_classes) if targets is None else targets
            prepared["image"], prepared["target"] = mixing.mix(
                prepared["image"], targets, rng, mixup_alpha=self.mixup, cutmix_alpha=self.cutmix
            )
        return prepared

    def forward(self, variables: PyTree, batch: Batch, rng: jax.Array | None = None, **options: Any) -> ModelOutput:
        """The model on a prepared batch; ``rng`` turns dropout on, keyed per example."""
        keys = of_examples(rng, batch)
        return self.model.apply(variables, batch["image"], train=rng is not None, rng=keys, **options)  # type: ignore[return-value]

    def _train(self, variables: PyTree, batch: Batch, rng: jax.Array) -> tuple[ModelOutput, PyTree]:
        """``forward`` with dropout, and what it changed of the variables beside the parameters."""
        collections = [name for name in variables if name != "params"]
        if not collections:
            return self.forward(variables, batch, rng), {}
        # Where examples see each other, padding must be known.
        return self.forward(variables, batch, rng, mask=batch["mask"], mutable=collections)  # type: ignore[return-value]

    def loss_per_example(self, logits: jax.Array, targets: jax.Array, *, train: bool) -> jax.Array:
        """float32 [B] for int labels [B] or probabilities [B, classes]; labels are smoothed in training only."""
        if self.cross_entropy == "sigmoid":
            return losses.sigmoid_cross_entropy(logits, targets)
        return losses.softmax_cross_entropy(logits, targets, label_smoothing=self.label_smoothing if train else 0.0)

    def per_example(self, logits: jax.Array, batch: Batch, *, train: bool) -> jax.Array:
        """float32 [B]: what is minimised, for a prepared batch."""
        return self.loss_per_example(logits, batch.get("target", batch["label"]), train=train)

    def loss(self, variables: PyTree, batch: Batch, rng: jax.Array, *, train: bool) -> LossOutput:
        """Loss (against ``target`` where there is one) and accuracy (against the labels) of a prepared batch."""
        output, mutables = self._train(variables, batch, rng) if train else (self.forward(variables, batch), {})
        assert output.logits is not None
        per_example = self.per_example(output.logits, batch, train=train)
        correct = losses.topk_correct(output.logits, batch["label"], 1)
        return LossOutput(
            loss=Mean.of(per_example, batch["mask"]),
            metrics={"accuracy": Mean.of(correct, batch["mask"])},
            mutables=mutables,
        )
