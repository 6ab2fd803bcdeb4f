"""Which example comes at which position, and the random numbers of that position.

Everything here is a pure function of (seed, position), so a run that starts at
batch n, on any number of hosts and threads, sees what the straight run sees.
Only NumPy's bit generators and integer arithmetic are used: NumPy promises
their streams (NEP 19), and does not promise those of ``Generator.permutation``.
"""

import functools
import hashlib
import threading

import numpy as np

# Above this a table of the permutation would cost 0.8 GB and more an epoch.
TABLE_LIMIT = 100_000_000
# Four rounds are visibly non-uniform for tiny n (chi-squared 174 on 23 degrees of
# freedom for n = 4); eight are not (20).
FEISTEL_ROUNDS = 8

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64, in place on uint64 (wraps modulo 2**64)."""
    x ^= x >> np.uint64(30)
    x *= _MIX_1
    x ^= x >> np.uint64(27)
    x *= _MIX_2
    x ^= x >> np.uint64(31)
    return x


@functools.lru_cache(1024, typed=True)
def key(*parts: object) -> int:
    """A 64-bit key from names and numbers, the same in every process (unlike ``hash``)."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def hashed(stream: int, counters: np.ndarray) -> np.ndarray:
    """uint64 random bits for each counter (any shape) of one stream (see ``key``)."""
    mixed = np.asarray(counters).astype(np.uint64)  # astype copies: _mix works in place
    mixed *= _GOLDEN
    mixed += np.uint64(stream)
    mixed = _mix(mixed)
    mixed += np.uint64(stream)
    return _mix(mixed)


def uniforms(seed: int, stream: str, positions: np.ndarray, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1), keyed by global position and a named stream.

    Args:
      seed: of the run.
      stream: name of the use; streams are independent of each other.
      positions: int64 [B], global positions.
      count: numbers a position. The first k numbers do not depend on it.

    Returns:
      float64 [B, count].

    Reference: Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators" (OOPSLA 2014), used as a counter-based hash.
    """
    start = hashed(key(seed, stream), positions)[:, None]
    bits = _mix(start + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)
    return (bits >> np.uint64(11)) * 2.0**-53


def permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    """The order of one epoch as a table: int64 [length].

    Sorts random numbers whose low bits are the example's index: no ties, so the result
    does not depend on the sorting algorithm, and several times faster than argsort.
    """
    bits = np.random.Philox(key=[key(seed, "order"), epoch]).random_raw(length)
    low = np.uint64((1 << (length - 1).bit_length()) - 1)
    bits &= ~low
    bits |= np.arange(length, dtype=np.uint64)
    bits.sort()
    bits &= low
    return bits.view(np.int64)


def feistel(seed: int, epoch: int, length: int, ranks: np.ndarray) -> np.ndarray:
    """The order of one epoch without a table: example of each rank, int64 like ``ranks``.

    A Feistel network permutes the smallest even-bit power of two that holds
    ``length``; results outside are permuted again until they fall inside.

    Reference: Black and Rogaway, "Ciphers with arbitrary finite domains" (CT-RSA 2002).
    """
    half = np.uint64((max(length - 1, 1).bit_length() + 1) // 2)
    low = np.uint64((1 << int(half)) - 1)
    keys = [np.uint64(key(seed, "feistel", epoch, r)) for r in range(FEISTEL_ROUNDS)]
    out = np.asarray(ranks).astype(np.uint64)
    todo = np.arange(out.size)
    while todo.size:
        left, right = out[todo] >> half, out[todo] & low
        for k in keys:
            left, right = right, left ^ (_mix(right * _GOLDEN + k) & low)
        out[todo] = (left << half) | right
        todo = todo[out[todo] >= length]
    return out.astype(np.int64)


class Order:
    """Maps global positions to examples: epoch e covers positions e * N ... (e + 1) * N - 1.

    Args:
      num_examples: N.
      seed: of the run.
      shuffle: a new permutation each epoch; without it, the source's own order.
    """

    def __init__(self, num_examples: int, *, seed: int, shuffle: bool):
        self.num_examples, self.seed, self.shuffle = num_examples, seed, shuffle
        self._tables: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Example indices for int64 positions [B]."""
        n = self.num_examples
        epochs, ranks = np.divmod(positions, n)
        if not self.shuffle:
            return ranks
        out = np.empty_like(ranks)
        for epoch in range(int(epochs.min()), int(epochs.max()) + 1):
            here = epochs == epoch
            if n > TABLE_LIMIT:
                out[here] = feistel(self.seed, epoch, n, ranks[here])
            else:
                out[here] = self._table(epoch)[ranks[here]]
        return out

    def _table(self, epoch: int) -> np.ndarray:
        with self._lock:  # or every worker would sort the same new epoch at once
            if epoch not in self._tables:
                while len(self._tables) >= 2:  # a batch may straddle two epochs
                    self._tables.pop(next(iter(self._tables)))
                self._tables[epoch] = permutation(self.seed, epoch, self.num_examples)
            return self._tables[epoch]
