"""The types that the loop, the models and the data exchange."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import flax.struct
import jax

from vitax.core.metrics import Mean

Array = jax.Array
PyTree = Any

# A mapping of arrays with axis 0 = example. Always holds ``mask: bool[B]`` (False =
# padding) and ``index: int32[B]`` (which example of its source). Images are
# ``image: uint8[B, H, W, C]`` with ``label: int32[B]``.
Batch = Mapping[str, Any]

# One example on the host: the same names without axis 0, and encoded or decoded
# images (``image``: bytes of a JPEG or PNG, or uint8[H, W, C]).
Example = dict[str, Any]


@flax.struct.dataclass
class ModelOutput:
    """What a model returns.

    Attributes:
      logits: float [B, classes], or [B, T, V] for language models; None without a head.
      features: float [B, D], what the head sees.
      intermediates: named arrays (patch tokens, blocks, attention weights on request).
      cache: key-value cache of cached decoding, or None.
    """

    logits: Array | None
    features: Array | None = None
    intermediates: dict[str, Array] = flax.struct.field(default_factory=dict)
    cache: PyTree = None


@flax.struct.dataclass
class LossOutput:
    """What an objective returns: sums with their weights, never averages.

    Attributes:
      loss: the quantity to minimise, as a ``Mean`` over examples or tokens.
      metrics: name -> Mean, e.g. ``accuracy``.
      mutables: updated non-trained variables (BatchNorm statistics), {} if none.
    """

    loss: Mean
    metrics: dict[str, Mean] = flax.struct.field(default_factory=dict)
    mutables: PyTree = flax.struct.field(default_factory=dict)


@flax.struct.dataclass
class TrainState:
    """All that a run needs to go on: nothing else survives a restart.

    Attributes:
      step: int32 scalar, steps done.
      params: trained variables, one leaf a layer (never stacked).
      mutables: other variables of the model, such as BatchNorm's running statistics, by
        collection ({} for transformers).
      opt_state: state of the optax transformation.
      ema: averaged params, or {} where the recipe keeps none.
      ema_mutables: averaged mutables, which belong to ``ema`` as ``mutables`` do to
        ``params``; {} where there are no averages or no mutables.
      constants: collections that no step changes and no gradient reaches, such as the
        variables of a teacher; here so that a restart needs no other file.
    """

    step: Array
    params: PyTree
    mutables: PyTree
    opt_state: PyTree
    ema: PyTree
    ema_mutables: PyTree = flax.struct.field(default_factory=dict)
    constants: PyTree = flax.struct.field(default_factory=dict)


class Objective(Protocol):
    """A task: separates arrays from meaning, so one step serves all tasks."""

    def init(self, rng: Array, batch: Batch) -> PyTree:
        """Variables for a batch of these shapes: ``{"params": ..., **mutables, **constants}``.

        The names of the constants stand in the attribute ``constants``, if there are any.
        """
        ...

    def prepare(self, batch: Batch, rng: Array, *, train: bool) -> Batch:
        """Whole-batch work on the device, before microbatches split it: scaling, mixup."""
        ...

    def loss(self, variables: PyTree, batch: Batch, rng: Array, *, train: bool) -> LossOutput:
        """Loss of a prepared (micro)batch."""
        ...


class DataSource(Protocol):
    """Random access to examples, so that "where was I" is one integer."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


class Evaluator(Protocol):
    """Measures a state; ``build`` compiles nothing until it is called."""

    name: str
    every: Any

    def build(self, program: Any) -> Callable[[TrainState], dict[str, float]]: ...
