"""Learning-rate schedules: a spec -> a pure function of the step.

The convention of all of them, for updates numbered from 0 (update ``s`` uses ``lr(s)``)
in a run of ``T`` updates (numbered 0 to T-1) with a warm-up of ``W``:

- ``lr(s) = peak * s / W`` times the schedule for ``s < W``, so ``lr(0) = 0`` where there
  is a warm-up (the first update moves nothing, but fills the moments) and ``lr(W)`` is
  exactly ``peak``. Without a warm-up ``lr(0)`` is exactly ``peak``.
- A schedule that decays reaches its end value exactly at ``s = T``, one past the last
  update; the last update is one increment short of it. From there on it stays.

This is what vision_transformer, big_vision, BiT and BERT's code do. Transformer (2017),
GPT-2 and their descendants count from 1, so that update ``s`` warms up with
``(s + 1) / W``; optax's and timm's tables differ again in where the decay starts. A
shift by one update in 10,000 is nothing, but it shows in a comparison of two programs.

In a run shorter than its warm-up (a trial of a few steps of a long recipe) the rate
follows the same line and never reaches the peak; this is logged as a warning.
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from vitax.core.durations import Duration
from vitax.core.errors import UserError
from vitax.core.ramp import Ramp

LearningRate = Callable[[Any], jax.Array]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Lengths:
    """What converts durations to steps."""

    batch_size: int
    num_examples: int
    total_steps: int
    ramp: Ramp | None

    def exact_steps(self, duration: Duration | None) -> float:
        if duration is None:
            return 0.0
        return duration.exact_steps(
            batch_size=self.batch_size, num_examples=self.num_examples, total_steps=self.total_steps, ramp=self.ramp
        )

    def steps(self, duration: Duration | None) -> int:
        return round(self.exact_steps(duration))


def _part(steps: jax.Array, of: int) -> jax.Array:
    """steps / of, kept within 0 and 1; exactly 1 from ``of`` steps on."""
    # The compiler divides by multiplying with a rounded reciprocal: 49 / 49 may fall short of 1.
    return jnp.where(steps >= of, 1.0, jnp.maximum(steps, 0.0) / of)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """Base of all schedules: warm-up times a shape.

    Attributes:
      warmup: duration of the linear warm-up from 0, e.g. ``{"steps": 10000}``; None for none.
    """

    warmup: Mapping[str, float] | None = None

    # Fields that hold durations; used to tell whether the schedule depends on the run's length.
    _durations: ClassVar[tuple[str, ...]] = ("warmup",)

    def __post_init__(self) -> None:
        for name in self._durations:
            self._duration(name)

    @property
    def depends_on_length(self) -> bool:
        """Whether the rate of some update depends on the length of the run.

        Where it does not, a resumed run may be made longer or shorter.
        """
        given = (self._duration(name) for name in self._durations)
        return any(d is not None and d.unit == "fraction" for d in given)

    def make(
        self, peak: float, total_steps: int, *, batch_size: int, num_examples: int, ramp: Ramp | None = None
    ) -> LearningRate:
        """Builds the function of the step.

        Args:
          peak: the largest rate.
          total_steps: updates in the run.
          batch_size: examples a step.
          num_examples: examples an epoch.
          ramp: where the first batches are smaller.

        Returns:
          step (int or integer array, from 0) -> float32 rate of that update; pure,
          traceable, and meaningful past the end of the run.

        Raises:
          UserError: the numbers do not make a schedule.
        """
        if not (math.isfinite(peak) and peak >= 0):
            raise UserError(f"optimizer.lr: expected a number of at least 0, got {peak!r}.")
        if total_steps < 1:
            raise UserError(f"duration: a schedule needs at least one step, got {total_steps}.")
        lengths = _Lengths(batch_size, num_examples, total_steps, ramp)
        warmup = lengths.steps(self._duration("warmup"))
        if warmup > total_steps:
            _log.warning(
                "schedule.warmup: %d steps of warm-up in a run of %d; the learning rate only gets to %.3g of %.3g.",
                warmup,
                total_steps,
                peak * (total_steps - 1) / warmup,
                peak,
            )
        shape = self._shape(peak, warmup, lengths)

        def learning_rate(step: Any) -> jax.Array:
            step = jnp.asarray(step, jnp.float32)  # exact up to 2^24 steps
            rate = jnp.asarray(shape(step), jnp.float32)
            return rate * _part(step, warmup) if warmup else rate

        return learning_rate

    def _shape(self, peak: float, warmup: int, lengths: _Lengths) -> Callable[[jax.Array], jax.Array]:
        """The schedule without its warm-up: float32 step -> float32 rate."""
        raise NotImplementedError

    def _duration(self, name: str) -> Duration | None:
        return Duration.parse(getattr(self, name), f"schedule.{name}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """``peak`` after the warm-up."""

    def _shape(self, peak: float, warmup: int, lengths: _Lengths) -> Callable[[jax.Array], jax.Array]:
        return lambda step: jnp.full_like(step, peak)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ToEnd(Schedule):
    """Base of the schedules that decay to a stated end.

    Attributes:
      end: rate at the end, as a fraction of the peak.
      end_lr: rate at the end, absolute; use one of the two. ViT's linear decay ends at
        1e-5 whatever the peak (the authors, on public threads).
    """

    end: float = 0.0
    end_lr: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end and self.end_lr is not None:
            raise UserError(f"schedule: `end` ({self.end}) and `end_lr` ({self.end_lr}) exclude each other; set one.")
        if not 0 <= self.end <= 1:
            raise UserError(f"schedule.end: expected a fraction of the peak from 0 to 1, got {self.end!r}.")
        if self.end_lr is not None and not self.end_lr >= 0:
            raise UserError(f"schedule.end_lr: expected a rate of at least 0, got {self.end_lr!r}.")

    def _last(self, peak: float) -> float:
        if self.end_lr is None:
            return self.end * peak
        if self.end_lr > peak:
            raise UserError(
                f"schedule.end_lr: {self.end_lr} is above the peak (optimizer.lr = {peak}), so the rate would rise; "
                "lower it, or give `end` as a fraction of the peak."
            )
        return self.end_lr


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Decay(_ToEnd):
    """Base of linear and cosine decay.

    Attributes:
      until: when the end value is reached, counted from the start of the run; None for
        the run's end. With it the schedule does not depend on the run's length. GPT-3
        decays until 260 of its 300 billion tokens.
    """

    until: Mapping[str, float] | None = None
    _durations: ClassVar[tuple[str, ...]] = ("warmup", "until")

    @property
    def depends_on_length(self) -> bool:
        return self.until is None or super().depends_on_length

    def _shape(self, peak: float, warmup: int, lengths: _Lengths) -> Callable[[jax.Array], jax.Array]:
        last = self._last(peak)
        until = lengths.total_steps if self.until is None else lengths.steps(self._duration("until"))
        if self.until is not None and until <= warmup:
            raise UserError(f"schedule.until: step {until} is not after the warm-up of {warmup} steps.")
        span = max(until - warmup, 1)

        def shape(step: jax.Array) -> jax.Array:
            # What is left, not what is done: small rates near the end keep their digits.
            weight = self._weight(_part(until - step, span))
            return peak * weight + last * (1.0 - weight)  # in this form exact at both ends

        return shape

    @staticmethod
    def _weight(left: jax.Array) -> jax.Array:
        """Part of the decay that is left, 1 to 0 -> weight of the peak, exact at both ends."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(_Decay):
    """From ``peak`` at the end of the warm-up in a straight line to the end value.

    Reference: ViT, arXiv:2010.11929, Table 3 (JFT and ImageNet-21k).
    """

    @staticmethod
    def _weight(left: jax.Array) -> jax.Array:
        return left


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine(_Decay):
    """Half a cosine from ``peak`` at the end of the warm-up to the end value.

    Reference: Loshchilov and Hutter, arXiv:1608.03983, without restarts; ViT,
    arXiv:2010.11929, Tables 3 and 4 (ImageNet from scratch; fine-tuning).
    """

    @staticmethod
    def _weight(left: jax.Array) -> jax.Array:
        return jnp.sin(0.5 * jnp.pi * left) ** 2  # (1 + cos(pi (1 - left))) / 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rsqrt(Schedule):
    """``peak / sqrt((s - W + timescale) / timescale)`` after a warm-up of W steps.

    With ``timescale`` equal to the warm-up it is ``peak * sqrt(W / s)``, the schedule of
    the Transformer (arXiv:1706.03762, equation 3, counted there from 1). A longer
    timescale keeps the rate up for longer (Scaling ViT, arXiv:2106.04560).

    Attributes:
      timescale: in steps.
      cooldown: duration of a last linear descent to 0 that multiplies the rate and ends
        with the run; None for none. With it the schedule depends on the run's length.
    """

    timescale: float = 10_000.0
    cooldown: Mapping[str, float] | None = None
    _durations: ClassVar[tuple[str, ...]] = ("warmup", "cooldown")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.timescale > 0:
            raise UserError(f"schedule.timescale: expected a number of steps above 0, got {self.timescale!r}.")

    @property
    def depends_on_length(self) -> bool:
        return self.cooldown is not None or super().depends_on_length

    def _shape(self, peak: float, warmup: int, lengths: _Lengths) -> Callable[[jax.Array], jax.Array]:
        cooldown = lengths.steps(self._duration("cooldown"))
        total = lengths.total_steps

        def shape(step: jax.Array) -> jax.Array:
            rate = peak / jnp.sqrt(1.0 + jnp.maximum(step - warmup, 0.0) / self.timescale)
            return rate * _part(total - step, cooldown) if cooldown else rate

        return shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(_ToEnd):
    """Warm-up, ``peak``, then a straight line to the end value at the run's end.

    Reference: Hu et al., arXiv:2404.06395, with a linear instead of an exponential
    descent (Haegele et al., arXiv:2405.18392).

    Attributes:
      decay: duration of the descent. Steps before it do not depend on the run's length,
        but which steps those are does, so a resume may not change the length.
    """

    decay: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"fraction": 0.2})
    _durations: ClassVar[tuple[str, ...]] = ("warmup", "decay")

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [self._duration(name) for name in self._durations]
        if sum(d.value for d in given if d is not None and d.unit == "fraction") > 1:
            raise UserError("schedule: the fractions of `warmup` and `decay` are together above 1.")

    @property
    def depends_on_length(self) -> bool:
        return True

    def _shape(self, peak: float, warmup: int, lengths: _Lengths) -> Callable[[jax.Array], jax.Array]:
        last = self._last(peak)
        decay = lengths.steps(self._duration("decay"))
        total = lengths.total_steps
        if decay < 1:
            raise UserError(f"schedule.decay: {dict(self.decay)} is less than one step; use the constant schedule.")

        def shape(step: jax.Array) -> jax.Array:
            weight = _part(total - step, decay)
            return peak * weight + last * (1.0 - weight)

        return shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step(Schedule):
    """A staircase: ``peak * factor^k``, k the number of milestones at or before the step.

    The update numbered exactly as a milestone is the first with the lower rate.

    Reference: BiT, arXiv:1912.11370: 0.1 at epochs 30, 60 and 80 in pre-training, at 30%,
    60% and 90% of the steps in the HyperRule.

    Attributes:
      milestones: durations from the start of the run, ascending, e.g.
        ``({"epochs": 30}, {"epochs": 60})`` or ``({"fraction": 0.3},)``.
      factor: what each milestone multiplies the rate by.
    """

    milestones: tuple[Mapping[str, float], ...] = ()
    factor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._parsed()
        if not self.factor > 0:
            raise UserError(f"schedule.factor: expected a number above 0, got {self.factor!r}.")

    @property
    def depends_on_length(self) -> bool:
        return any(m.unit == "fraction" for m in self._parsed()) or super().depends_on_length

    def _parsed(self) -> list[Duration]:
        if not self.milestones:
            raise UserError('schedule.milestones: expected at least one duration, such as {"epochs": 30}.')
        parsed = [Duration.parse(m, f"schedule.milestones.{i}") for i, m in enumerate(self.milestones)]
        if None in parsed:
            raise UserError("schedule.milestones: expected durations, got None.")
        return [m for m in parsed if m is not None]

    def _shape(self, peak: float, warmup: int, lengths: _Lengths) -> Callable[[jax.Array], jax.Array]:
        steps = [lengths.steps(m) for m in self._parsed()]
        if steps != sorted(steps):
            raise UserError(f"schedule.milestones: expected ascending durations, got steps {steps}.")
        # A table, not a power, so that the rates are the rounded products themselves. In NumPy:
        # a recipe is built before devices start.
        rates = np.array([peak * self.factor**k for k in range(len(steps) + 1)], np.float32)
        at = np.array(steps, np.float32)
        return lambda step: jnp.asarray(rates)[jnp.searchsorted(jnp.asarray(at), step, side="right")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exponential(Schedule):
    """``peak * factor^floor((s - W) / every)``, falls being at the updates nearest to their time.

    Reference: EfficientNet, arXiv:1905.11946, section 5.2: 0.97 every 2.4 epochs.
    Counted from the end of the warm-up; the paper does not say from where.

    Attributes:
      every: duration between two falls.
      factor: what each multiplies the rate by.
      smooth: without the floor.
    """

    every: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"epochs": 2.4})
    factor: float = 0.97
    smooth: bool = False
    _durations: ClassVar[tuple[str, ...]] = ("warmup", "every")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.factor <= 1:
            raise UserError(f"schedule.factor: expected above 0 and at most 1, got {self.factor!r}.")

    def _shape(self, peak: float, warmup: int, lengths: _Lengths) -> Callable[[jax.Array], jax.Array]:
        # Not rounded, or the falls would drift from 2.4 epochs.
        every = lengths.exact_steps(self._duration("every"))
        if every < 1:
            raise UserError(f"schedule.every: {dict(self.every)} is less than one step.")

        def shape(step: jax.Array) -> jax.Array:
            done = jnp.maximum(step - warmup, 0.0)
            # Half a step keeps a rounded quotient off the edge of the floor.
            falls = done / every if self.smooth else jnp.floor((done + 0.5) / every)
            return peak * jnp.float32(self.factor) ** falls

        return shape


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "rsqrt": Rsqrt,
    "wsd": WarmupStableDecay,
    "step": Step,
    "exponential": Exponential,
}
