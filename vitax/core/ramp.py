"""Batches that grow over the first part of a run."""

import dataclasses
import math

from vitax.core.bounds import Positive


@dataclasses.dataclass(frozen=True)
class Ramp:
    """Batch ``n`` holds about ``start + (batch_size - start) n / R`` examples for the R steps that it lasts.

    Everything is a function of the step alone, in whole examples, so a run resumes in the
    middle of a ramp as anywhere else.

    Attributes:
      start: examples of the first batch.
      examples: that the ramp takes in all.

    Reference: Brown et al., arXiv:2005.14165, section 2.3 and appendix B: linearly from 32k
      tokens over the first 4 to 12 billion.
    """

    start: Positive
    examples: Positive

    def length(self, batch_size: int) -> int:
        """R, in steps; at least 1."""
        return max(round(2 * self.examples / (self.start + batch_size)), 1)

    def before(self, step: int, batch_size: int) -> int:
        """Examples of all batches before batch ``step``."""
        length = self.length(batch_size)
        inside = min(step, length)
        grown = (2 * length * self.start * inside + (batch_size - self.start) * inside**2) // (2 * length)
        return grown + (step - inside) * batch_size

    def count(self, step: int, batch_size: int) -> int:
        """Examples of batch ``step``."""
        return self.before(step + 1, batch_size) - self.before(step, batch_size)

    def steps(self, examples: float, batch_size: int) -> float:
        """Steps that so many examples take, not rounded: the inverse of ``before``."""
        length = self.length(batch_size)
        inside = self.before(length, batch_size)
        if examples >= inside:
            return length + (examples - inside) / batch_size
        growth = (batch_size - self.start) / length
        if not growth:
            return examples / batch_size
        return (math.sqrt(self.start**2 + 2 * growth * examples) - self.start) / growth
