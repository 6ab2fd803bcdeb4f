import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitax.core.durations import UNITS, Duration, due
from vitax.core.errors import UserError

LENGTHS = {"batch_size": 512, "num_examples": 50_000, "total_steps": 1000}


@pytest.mark.parametrize(
    ("spec", "steps"),
    [
        ({"steps": 7}, 7),
        ({"epochs": 1}, 98),  # 97.66
        ({"epochs": 2.4}, 234),  # 234.375: rounded once, not an epoch at a time
        ({"examples": 5120}, 10),
        ({"fraction": 0.3}, 300),
        ({"steps": 3, "epochs": None}, 3),
        ({"steps": 0}, 0),
    ],
)
def test_converts_to_steps(spec, steps):
    assert Duration.parse(spec, "duration").steps(**LENGTHS) == steps


def test_units_agree():
    ways = [{"steps": 300}, {"epochs": 300 * 512 / 50_000}, {"examples": 300 * 512}, {"fraction": 0.3}]
    assert {next(iter(way)) for way in ways} == set(UNITS)
    assert {Duration.parse(way, "duration").steps(**LENGTHS) for way in ways} == {300}


def test_none_stays_none():
    assert Duration.parse(None, "schedule.warmup") is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"step": 5}, 'Did you mean "steps"'),
        ({}, "exactly one"),
        ({"steps": 5, "epochs": 1}, "exactly one"),
        ({"steps": -1}, "at least 0"),
        ({"steps": True}, "at least 0"),
        ({"steps": "5"}, "at least 0"),
        ({"fraction": 1.5}, "0 to 1"),
        (5, "expected one of"),
    ],
)
def test_refuses(spec, message):
    with pytest.raises(UserError, match=message) as error:
        Duration.parse(spec, "log.every")
    assert str(error.value).startswith("log.every")


def test_fraction_needs_the_length():
    with pytest.raises(UserError, match="length of the run"):
        Duration(0.5, "fraction").steps(batch_size=1, num_examples=1)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 500), st.integers(1, 50_000), st.integers(1, 8))
def test_intervals_do_not_drift(batch_size, num_examples, epochs):
    every = Duration(epochs, "epochs").exact_steps(batch_size=batch_size, num_examples=num_examples)
    last = min(int(40 * every) + 1, 3000)
    ends = [step for step in range(1, last + 1) if due(step, every)]
    if every >= 1:
        # The k-th end is the first whole step at or after k intervals.
        assert len(ends) == int(last / every)
        # Within rounding: 11 intervals of 477 / 11 steps end at 477, whose product is a hair above.
        assert all(-1e-6 <= end - k * every < 1 + 1e-6 for k, end in enumerate(ends, start=1))
    else:
        assert ends == list(range(1, last + 1))  # shorter than a step: every step
