"""Numbers with bounds, stated where a field is declared: ``batch_size: Positive``.

``vitax.construct`` reads them of a constructor's signature, the command line of its options.
"""

import dataclasses
from typing import Annotated


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What a number must keep to.

    Attributes:
      least: the smallest value.
      below: values must lie below it; None = no limit.
    """

    least: float
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return value >= self.least and (self.below is None or value < self.below)

    def __str__(self) -> str:
        return f"at least {self.least:g}" + ("" if self.below is None else f" and below {self.below:g}")


Positive = Annotated[int, Bounds(1)]
NotNegative = Annotated[int, Bounds(0)]
# A probability of dropping something: at 1 nothing would be left.
DropRate = Annotated[float, Bounds(0, below=1)]
