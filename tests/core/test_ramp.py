"""Batches that grow: whole examples, none lost, functions of the step alone."""

from hypothesis import given
from hypothesis import strategies as st

from vitax.core.durations import Duration
from vitax.core.ramp import Ramp

sizes = st.integers(1, 40).flatmap(lambda start: st.tuples(st.just(start), st.integers(start, 60)))


@given(sizes, st.integers(1, 2000))
def test_every_example_is_in_one_batch(pair, examples):
    start, size = pair
    ramp = Ramp(start, examples)
    length = ramp.length(size)
    counts = [ramp.count(n, size) for n in range(length + 5)]
    assert [ramp.before(n, size) for n in range(length + 6)] == [sum(counts[:n]) for n in range(length + 6)]
    assert all(start <= c <= size for c in counts)
    assert counts[length:] == [size] * 5
    # Linear: no batch is more than one example away from it.
    for n, c in enumerate(counts[:length]):
        assert abs(c - (start + (size - start) * (n + 0.5) / length)) <= 1
    # R is whole, so the ramp may end half a step early or late.
    assert abs(ramp.before(length, size) - examples) <= size


@given(sizes, st.integers(1, 2000), st.integers(0, 500))
def test_steps_are_the_inverse_of_examples(pair, examples, step):
    start, size = pair
    ramp = Ramp(start, examples)
    assert abs(ramp.steps(ramp.before(step, size), size) - step) <= 1.0 / start + 1e-6


def test_durations_follow():
    ramp = Ramp(start=2, examples=60)
    assert ramp.length(10) == 10
    duration = Duration.parse({"examples": 160}, "duration")
    assert duration.steps(batch_size=10, num_examples=40, ramp=ramp) == 20
    assert duration.steps(batch_size=10, num_examples=40) == 16
    assert Duration.parse({"epochs": 4}, "duration").steps(batch_size=10, num_examples=40, ramp=ramp) == 20
    assert Duration.parse({"steps": 7}, "duration").steps(batch_size=10, num_examples=40, ramp=ramp) == 7
