"""Step-indexed batches: batch ``n`` is a pure function of (seed, n).

No iterator state exists, so there is none to save: a run resumes at any batch, with
any number of hosts and threads, and sees the very bytes it would have seen.
"""

import abc
import collections
import functools
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from vitax.core.errors import UserError
from vitax.core.ramp import Ramp
from vitax.data import order

Batch = dict[str, np.ndarray]

SMALL_BYTES = 1 << 20


class StepIndexed(abc.ABC):
    """What pipelines share: which examples make a batch, and threads that work ahead.

    Global position p is example ``p mod N`` (in the order of its epoch) of epoch
    ``p // N``, and global batch n holds positions n * batch_size onwards.

    Args:
      source: see ``vitax.data.sources`` and ``vitax.data.text``.
      batch_size: of the global batch, over all processes.
      seed: of the order (and of what a subclass draws).
      shuffle: a new permutation each epoch; otherwise the source's order, repeated.
      threads: that work on examples; None for as many as this process may use.
      prefetch: batches that are worked on ahead; needs threads of its own, which
        is what hides a slow producer (a queue alone does not).
      process_index: of this host.
      process_count: hosts; ``batch_size`` is a multiple of it.
      ramp: smaller batches at first: of the same shape, with the rest under mask False.
    """

    def __init__(
        self,
        source: Any,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        threads: int | None = None,
        prefetch: int = 2,
        process_index: int = 0,
        process_count: int = 1,
        ramp: Ramp | None = None,
    ):
        _check_divisible(batch_size, process_count)
        if not 0 <= process_index < process_count:
            raise UserError(f"data: process_index={process_index}, but process_count={process_count}.")
        if len(source) == 0:
            raise UserError(f"data: the source holds no examples: {source!r}.")
        if prefetch < 1 or (threads is not None and threads < 1):
            raise UserError(f"data: threads={threads}, prefetch={prefetch}; expected at least 1 of each.")
        self.source, self.batch_size, self.seed, self.shuffle = source, batch_size, seed, shuffle
        self.prefetch, self.threads = prefetch, threads or len(os.sched_getaffinity(0))
        self.process_index, self.process_count = process_index, process_count
        self.num_examples, self.ramp = len(source), ramp
        # A source of several parts may have an order of its own.
        make_order = getattr(source, "make_order", functools.partial(order.Order, self.num_examples))
        self._order = make_order(seed=seed, shuffle=shuffle)

    def batch(self, n: int) -> Batch:
        """This process's contiguous part of global batch ``n``, in buffers of its own.

        Returns:
          What the subclass makes of B = batch_size / process_count examples, and mask bool
          [B] (all True), index int32 [B].
        """
        return self._ramped(n, None)

    def iterate(self, start: int = 0) -> Iterator[Batch]:
        """Yields ``batch(start)``, ``batch(start + 1)`` ... without end, made ahead by threads.

        An error surfaces at the batch where it occurs and names it. Closing the
        iterator (or dropping it) stops the threads.
        """
        return self._ahead(self._ramped, itertools.count(start), self.batch_size)

    def num_eval_batches(self, batch_size: int | None = None) -> int:
        """How many batches ``eval_batches`` yields: the same in every process."""
        return -(-self.num_examples // (batch_size or self.batch_size))

    def eval_batches(self, batch_size: int | None = None) -> Iterator[Batch]:
        """Yields every example exactly once over all processes, in the source's order.

        The last batch is filled up with zeros under mask False, so all have one shape
        and every process gets the same number.
        """
        size = batch_size or self.batch_size
        _check_divisible(size, self.process_count)
        numbers = range(self.num_eval_batches(size))
        return self._ahead(lambda n, pool: self._eval_batch(n, size, pool), numbers, size)

    @abc.abstractmethod
    def check(self) -> None:
        """Makes one example, so that bad data are found before devices are started."""

    @abc.abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What decides the batches, as JSON-ready data: not hosts, threads or paths."""

    @abc.abstractmethod
    def _train_batch(self, n: int, pool: Executor | None) -> Batch: ...

    @abc.abstractmethod
    def _eval_batch(self, n: int, batch_size: int, pool: Executor | None) -> Batch: ...

    @abc.abstractmethod
    def _group(self, examples: int) -> int:
        """How many batches of so many examples make one task.

        Handing a batch from thread to thread costs 0.1 ms, as much as making a small one.
        """

    def _ramped(self, n: int, pool: Executor | None) -> Batch:
        made = self._train_batch(n, pool)
        if self.ramp is None:
            return made
        local = self.batch_size // self.process_count
        rows = self.process_index * local + np.arange(local)
        return {**made, "mask": made["mask"] & (rows < self.ramp.count(n, self.batch_size))}

    def _train_positions(self, n: int) -> np.ndarray:
        if self.ramp is None:
            return self._positions(n, self.batch_size)
        # Behind the last one that counts stand those of the next batch, which count there.
        local = self.batch_size // self.process_count
        first = self.ramp.before(n, self.batch_size) + self.process_index * local
        return np.arange(first, first + local, dtype=np.int64)

    def _positions(self, n: int, batch_size: int) -> np.ndarray:
        local = batch_size // self.process_count
        first = n * batch_size + self.process_index * local
        return np.arange(first, first + local, dtype=np.int64)

    def _ahead(
        self, make: Callable[[int, Executor], Batch], numbers: Iterable[int], batch_size: int
    ) -> Iterator[Batch]:
        """Yields ``make(n, pool)`` for the numbers in order, ``prefetch`` tasks at work at a time."""
        remaining = iter(numbers)
        group = self._group(batch_size // self.process_count)
        # Two pools: with one, batches that wait for their examples could fill it and lock up.
        outer = ThreadPoolExecutor(self.prefetch, thread_name_prefix="batches")
        inner = ThreadPoolExecutor(self.threads, thread_name_prefix="examples")
        waiting: collections.deque[Future[list[Batch | Exception]]] = collections.deque()

        def task(chosen: list[int]) -> list[Batch | Exception]:
            made: list[Batch | Exception] = []
            for n in chosen:
                try:
                    made.append(make(n, inner))
                except UserError as error:
                    return [*made, UserError(f"batch {n}: {error}")]
                except Exception as error:
                    error.add_note(f"while making batch {n}")
                    return [*made, error]
            return made

        def start_next() -> None:
            if chosen := list(itertools.islice(remaining, group)):
                waiting.append(outer.submit(task, chosen))

        try:
            for _ in range(self.prefetch):
                start_next()
            while waiting:
                made = collections.deque(waiting.popleft().result())
                start_next()
                while made:
                    batch = made.popleft()  # not held here while the caller uses it
                    if isinstance(batch, Exception):
                        raise batch
                    yield batch
                    del batch
        finally:
            for pool in (outer, inner):
                pool.shutdown(wait=False, cancel_futures=True)
            for pool in (outer, inner):
                pool.shutdown(wait=True)


def difference(a: Any, b: Any, path: str = "data") -> list[str]:
    """Lines that say where fingerprint ``b`` differs from ``a`` ([] = it does not)."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = list(a) + [k for k in b if k not in a]
        pairs: list[tuple[Any, Any, str]] = [(a.get(k), b.get(k), f"{path}.{k}") for k in keys]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = [(x, y, f"{path}[{i}]") for i, (x, y) in enumerate(zip(a, b))]
    else:
        return [] if a == b else [f"{path}: was {json.dumps(a)}, is {json.dumps(b)}"]
    return [line for x, y, where in pairs for line in difference(x, y, where)]


def _check_divisible(batch_size: int, process_count: int) -> None:
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"data: batch_size={batch_size} must be a positive multiple of the {process_count} processes "
            f"(for example {max(batch_size // process_count, 1) * process_count})."
        )
