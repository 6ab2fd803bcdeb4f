"""Several texts in one run, each with a share of the windows."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vitax.core.errors import UserError
from vitax.data.composed import Concat
from vitax.data.order import Order, key

# Windows after which the shares repeat; a share is a multiple of one in so many.
BLOCK = 10_000


@dataclasses.dataclass(frozen=True)
class TextMixture:
    """Texts by weight: a batch holds windows of each in these shares, as even as whole windows can be.

    Each text has its own epochs: its windows come in a new order when all were seen, so a
    small text of much weight comes often, and a large one of little weight is not seen whole.
    An epoch of the run is as many windows as all texts have together.

    Attributes:
      sources: name -> a source of windows.
      weights: name -> its share of the windows, up to a common factor; its number of
        windows where all are left out.
    """

    sources: Mapping[str, Any]
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)

    class_names = None

    def __post_init__(self) -> None:
        if not self.sources:
            raise UserError("text_mixture: no sources; expected sources={NAME: {kind: ...}, ...}.")
        if self.weights and self.weights.keys() != self.sources.keys():
            raise UserError(
                f"text_mixture: weights of {', '.join(self.weights)}, but the sources are {', '.join(self.sources)}. "
                "Give each a weight, or none."
            )
        for name, weight in self.weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
                raise UserError(f"text_mixture: weights.{name}={weight!r}; expected a number above 0.")

    @functools.cached_property
    def _joined(self) -> Concat:
        return Concat(self.sources)

    @functools.cached_property
    def slots(self) -> dict[str, int]:
        """name -> windows in ``BLOCK``: the weights in whole numbers."""
        weights = self.weights or {name: len(source) for name, source in self.sources.items()}
        exact = np.array([weights[name] for name in self.sources], float)
        exact *= BLOCK / exact.sum()
        slots = np.floor(exact).astype(np.int64)
        slots[np.argsort(slots - exact, kind="stable")[: BLOCK - slots.sum()]] += 1
        for name, count in zip(self.sources, slots):
            if not count:
                raise UserError(f"text_mixture: the share of {name} is below one window in {BLOCK:,}. Leave it out.")
        return {name: int(count) for name, count in zip(self.sources, slots)}

    def make_order(self, *, seed: int, shuffle: bool) -> "MixedOrder":
        """Position -> window, see ``data.order.Order``."""
        return MixedOrder(
            list(self.slots.values()), [len(s) for s in self.sources.values()], seed=seed, shuffle=shuffle
        )

    @property
    def tokenizer(self) -> Any:
        """That of all sources."""
        return next(iter(self.sources.values())).tokenizer

    @property
    def length(self) -> int:
        """T of all sources."""
        return next(iter(self.sources.values())).length

    @property
    def largest_id(self) -> int:
        """Of all tokens."""
        return max(source.largest_id for source in self.sources.values())

    def documents(self) -> Iterator[bytes]:
        """Those of each source, once, as text to train a tokenizer on."""
        return (text for source in self.sources.values() for text in source.documents())

    def __len__(self) -> int:
        return len(self._joined)

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Windows of the sources end to end, as theirs."""
        return self._joined.gather(indices)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self._joined[index]

    def describe(self, index: int) -> str:
        return self._joined.describe(index)

    def fingerprint(self) -> dict[str, Any]:
        return {
            "kind": "text_mixture",
            "tokenizer": self.tokenizer.fingerprint(),
            "sources": {name: source.fingerprint() for name, source in self.sources.items()},
            "slots": self.slots,
        }


class MixedOrder:
    """Maps global positions to windows of sources that lie end to end.

    Args:
      slots: of each source in a block of positions.
      lengths: windows of each source.
      seed: of the run.
      shuffle: a new permutation in each epoch of a source; without it, the source's own order.
    """

    def __init__(self, slots: list[int], lengths: list[int], *, seed: int, shuffle: bool):
        self._slots = np.array(slots, np.int64)
        # The k-th of m stands at (k + 1/2) / m of the block: every stretch has nearly the shares of the whole.
        at = np.concatenate([(np.arange(m) + 0.5) / m for m in slots])
        taken = np.argsort(at, kind="stable")
        self._source = np.repeat(np.arange(len(slots)), slots)[taken]
        self._rank = np.concatenate([np.arange(m) for m in slots])[taken]
        self._first = np.cumsum([0, *lengths[:-1]])
        # A stream of its own for each, or texts of one length would go in step.
        seeds = [key(seed, "text_mixture", i) for i in range(len(lengths))]
        self._orders = [Order(n, seed=one, shuffle=shuffle) for one, n in zip(seeds, lengths)]

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Windows for int64 positions [B]."""
        block, slot = np.divmod(positions, len(self._source))
        source = self._source[slot]
        drawn = block * self._slots[source] + self._rank[slot]
        out = np.empty_like(positions)
        for number, order in enumerate(self._orders):
            here = source == number
            if here.any():
                out[here] = self._first[number] + order(drawn[here])
        return out
