"""Durations in any unit: ``{"steps": n}``, ``{"epochs": n}``, ``{"examples": n}``, ``{"fraction": f}``."""

import dataclasses
from collections.abc import Mapping

from vitax.core.errors import UserError, suggest
from vitax.core.ramp import Ramp

UNITS = ("steps", "epochs", "examples", "fraction")


@dataclasses.dataclass(frozen=True)
class Duration:
    """A length of training in one of four units.

    Attributes:
      value: how many.
      unit: ``steps``, ``epochs`` (of the training set), ``examples`` or
        ``fraction`` (of the whole run, 0 to 1).
    """

    value: float
    unit: str

    @classmethod
    def parse(cls, spec: Mapping[str, float] | None, where: str) -> "Duration | None":
        """Reads ``{unit: value}``; None stays None.

        Raises:
          UserError: not exactly one unit, an unknown one, or a negative value.
        """
        if spec is None:
            return None
        if not isinstance(spec, Mapping):
            raise UserError(f"{where}: expected one of {{{', '.join(UNITS)}}} with a number, got {spec!r}.")
        given = {k: v for k, v in spec.items() if v is not None}
        for key in given:
            if key not in UNITS:
                raise UserError(f'{where}: unknown unit "{key}".{suggest(key, UNITS)} Valid: {", ".join(UNITS)}.')
        if len(given) != 1:
            raise UserError(f"{where}: set exactly one of {', '.join(UNITS)}; got {sorted(given) or 'none'}.")
        ((unit, value),) = given.items()
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise UserError(f"{where}.{unit}: expected a number of at least 0, got {value!r}.")
        if unit == "fraction" and value > 1:
            raise UserError(f"{where}.fraction: expected 0 to 1, got {value!r}.")
        return cls(value, unit)

    def exact_steps(
        self, *, batch_size: int, num_examples: int, total_steps: int | None = None, ramp: Ramp | None = None
    ) -> float:
        """Converts to steps, not rounded.

        Args:
          batch_size: examples a step.
          num_examples: examples an epoch.
          total_steps: length of the run; needed for ``fraction`` only.
          ramp: where the first batches are smaller.
        """
        if self.unit == "steps":
            return self.value
        if self.unit in ("epochs", "examples"):
            examples = self.value * (num_examples if self.unit == "epochs" else 1)
            return examples / batch_size if ramp is None else ramp.steps(examples, batch_size)
        if total_steps is None:
            raise UserError("A duration in `fraction` needs the length of the run; give it in steps or epochs.")
        return self.value * total_steps

    def steps(
        self, *, batch_size: int, num_examples: int, total_steps: int | None = None, ramp: Ramp | None = None
    ) -> int:
        """``exact_steps`` rounded to the nearest whole step."""
        return round(
            self.exact_steps(batch_size=batch_size, num_examples=num_examples, total_steps=total_steps, ramp=ramp)
        )


def due(step: int, every: float) -> bool:
    """Whether an interval of ``every`` steps (not rounded) ends at ``step``.

    Rounding the interval instead would let "every 2 epochs" of 156.25 steps drift
    from the end of the sixth.
    """
    return int(step / every) > int((step - 1) / every)
