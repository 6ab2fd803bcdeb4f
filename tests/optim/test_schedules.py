"""Laws of the schedules, each against plain Python in double precision."""

import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitax.core.errors import UserError
from vitax.optim.schedules import SCHEDULES

PEAK, TOTAL, WARMUP = 3e-3, 1000, 100
RUN = {"batch_size": 512, "num_examples": 51_200}  # 100 steps an epoch

# Fields that make each kind, and whether its rate depends on the run's length.
KINDS = {
    "constant": ({}, False),
    "linear": ({"end_lr": 1e-5}, True),
    "cosine": ({"end": 0.1}, True),
    "rsqrt": ({"timescale": 400.0}, False),
    "wsd": ({"decay": {"fraction": 0.2}, "end": 0.01}, True),
    "step": ({"milestones": ({"epochs": 3}, {"epochs": 6}, {"epochs": 8})}, False),
    "exponential": ({"every": {"epochs": 1}, "factor": 0.9}, False),
}


def make(kind, *, total=TOTAL, peak=PEAK, warmup=WARMUP, **fields):
    warm = {"steps": warmup} if warmup else None
    # Compiled, as it runs: the compiler's arithmetic is not that of single operations.
    return jax.jit(SCHEDULES[kind](warmup=warm, **fields).make(peak, total, **RUN))


def values(fn, steps):
    return np.asarray(jax.jit(jax.vmap(fn))(jnp.asarray(steps)))


def test_every_kind_is_tested():
    assert KINDS.keys() == SCHEDULES.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_warmup_is_a_line_from_zero_to_exactly_the_peak(kind):
    rate = make(kind, **KINDS[kind][0])
    steps = np.arange(WARMUP + 1)
    assert float(rate(0)) == 0.0
    assert float(rate(WARMUP)) == np.float32(PEAK)
    np.testing.assert_allclose(values(rate, steps), PEAK * steps / WARMUP, rtol=3e-7)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "wsd"])
def test_ends_are_exact_whatever_the_length(kind):
    # 49 * (1 / 49) is below 1 in float32.
    for warmup in (3, 41, 47, 49, 55, 61, 82, 97):
        fields = {"decay": {"steps": 49}} if kind == "wsd" else {}
        rate = make(kind, total=warmup + 49, warmup=warmup, **fields)
        assert float(rate(warmup)) == np.float32(PEAK)
        assert float(rate(warmup - 1)) < np.float32(PEAK)


def test_exponential_falls_when_epochs_end():
    # 2.4 epochs of 156.25 steps: 375; of 130.2: 312.5, which must not drift by rounding.
    schedule = SCHEDULES["exponential"](every={"epochs": 2.4}, factor=0.97)
    for batch_size, every in ((320, 375.0), (384, 312.5)):
        rate = schedule.make(1.0, 10**6, batch_size=batch_size, num_examples=50_000)
        got = np.log(values(rate, np.arange(100_000)).astype(np.float64)) / np.log(0.97)
        falls = np.flatnonzero(np.diff(got)) + 1
        np.testing.assert_allclose(falls, every * np.arange(1, len(falls) + 1), atol=0.5)
        np.testing.assert_allclose(got[falls], np.arange(1, len(falls) + 1), atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_without_warmup_the_first_update_has_the_peak(kind):
    assert float(make(kind, warmup=0, **KINDS[kind][0])(0)) == np.float32(PEAK)


@pytest.mark.parametrize("kind", KINDS)
def test_never_rises_after_the_warmup_and_stays_at_its_end(kind):
    rate = values(make(kind, **KINDS[kind][0]), np.arange(WARMUP, TOTAL + 200))
    assert np.all(np.diff(rate) <= 1e-9)
    assert np.all(rate >= 0)
    if KINDS[kind][1]:
        assert len(set(rate[TOTAL - WARMUP :])) == 1


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("step", "exponential")])
def test_continuous(kind):
    rate = values(make(kind, **KINDS[kind][0]), np.arange(TOTAL + 10))
    assert np.abs(np.diff(rate)).max() < PEAK / 90


@pytest.mark.parametrize("kind", KINDS)
def test_pure_float32_and_traceable(kind):
    fields = KINDS[kind][0]
    rate, compiled = SCHEDULES[kind](warmup={"steps": WARMUP}, **fields).make(PEAK, TOTAL, **RUN), make(kind, **fields)
    for step in (0, 57, WARMUP, 700, TOTAL):
        eager, traced = rate(step), compiled(jnp.int32(step))
        assert eager.dtype == traced.dtype == jnp.float32
        assert eager.shape == ()
        np.testing.assert_allclose(eager, traced, rtol=2e-6)


@pytest.mark.parametrize(
    ("kind", "fields", "end"),
    [
        ("linear", {"end_lr": 1e-5}, 1e-5),
        ("linear", {}, 0.0),
        ("linear", {"end": 0.25}, 0.25 * PEAK),
        ("cosine", {"end": 0.1}, 0.1 * PEAK),
        ("cosine", {}, 0.0),
        ("wsd", {"end": 0.01}, 0.01 * PEAK),
        ("rsqrt", {"cooldown": {"epochs": 2}}, 0.0),
    ],
)
def test_end_is_exact_one_past_the_last_update(kind, fields, end):
    rate = make(kind, **fields)
    assert float(rate(TOTAL)) == pytest.approx(end, rel=2e-7, abs=0)
    assert float(rate(TOTAL - 1)) > end


def test_values_between():
    s = np.arange(WARMUP, TOTAL + 1)
    p = (s - WARMUP) / (TOTAL - WARMUP)
    want = {
        "linear": 1e-5 + (PEAK - 1e-5) * (1 - p),
        "cosine": PEAK * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * p))),
        "rsqrt": PEAK / np.sqrt((s + 400 - WARMUP) / 400),
        "wsd": PEAK * np.clip(0.01 + 0.99 * (TOTAL - s) / 200, 0, 1),
        "step": PEAK * 0.1 ** ((s >= 300).astype(int) + (s >= 600) + (s >= 800)),
        "exponential": PEAK * 0.9 ** np.floor((s - WARMUP) / 100),
    }
    for kind, expected in want.items():
        np.testing.assert_allclose(values(make(kind, **KINDS[kind][0]), s), expected, rtol=3e-6, err_msg=kind)


def test_rsqrt_with_its_warmup_as_timescale_is_the_transformers():
    rate = make("rsqrt", peak=1.0, warmup=400, timescale=400.0, total=10_000)
    s = np.arange(1, 10_000, 97)
    np.testing.assert_allclose(values(rate, s), np.sqrt(400) * np.minimum(s**-0.5, s * 400**-1.5), rtol=1e-6)


def test_smooth_exponential_meets_the_staircase_at_its_edges():
    edges = WARMUP + 100 * np.arange(6)
    fields = {"every": {"epochs": 1}, "factor": 0.9}
    stairs, smooth = make("exponential", **fields), make("exponential", smooth=True, **fields)
    np.testing.assert_allclose(values(stairs, edges), values(smooth, edges), rtol=1e-6)
    assert float(smooth(WARMUP + 50)) < float(stairs(WARMUP + 50))


@pytest.mark.parametrize("kind", KINDS)
def test_units_of_warmup_agree(kind):
    ways = ({"steps": 100}, {"epochs": 1}, {"examples": 51_200}, {"fraction": 0.1})
    s = np.arange(0, TOTAL, 13)
    rates = [values(SCHEDULES[kind](warmup=w, **KINDS[kind][0]).make(PEAK, TOTAL, **RUN), s) for w in ways]
    for rate in rates[1:]:
        np.testing.assert_array_equal(rate, rates[0])


def test_a_larger_batch_has_fewer_steps_an_epoch():
    schedule = SCHEDULES["step"](milestones=({"epochs": 30},))
    small = schedule.make(1.0, 9000, batch_size=512, num_examples=51_200)
    large = schedule.make(1.0, 4500, batch_size=1024, num_examples=51_200)
    assert (float(small(2999)), float(small(3000))) == (1.0, np.float32(0.1))
    assert (float(large(1499)), float(large(1500))) == (1.0, np.float32(0.1))


def test_bit_hyperrule():
    rule = SCHEDULES["step"](
        warmup={"steps": 500}, milestones=({"fraction": 0.3}, {"fraction": 0.6}, {"fraction": 0.9})
    )
    rate = rule.make(0.003, 10_000, batch_size=512, num_examples=50_000)
    want = {250: 0.0015, 500: 0.003, 2999: 0.003, 3000: 3e-4, 6000: 3e-5, 9000: 3e-6, 9999: 3e-6}
    for step, value in want.items():
        assert float(rate(step)) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_depends_on_length_tells_the_truth(kind):
    fields, depends = KINDS[kind]
    steps = np.arange(TOTAL)
    for extra, says in (({}, depends), ({"warmup": {"fraction": 0.05}}, True)):
        schedule = SCHEDULES[kind](**{"warmup": {"steps": WARMUP}, **fields, **extra})
        assert schedule.depends_on_length == says
        a, b = (values(schedule.make(PEAK, total, **RUN), steps) for total in (TOTAL, 2 * TOTAL))
        assert np.array_equal(a, b) != says


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        ("linear", {"until": {"steps": 800}}, False),
        ("cosine", {"until": {"fraction": 0.9}}, True),
        ("rsqrt", {"cooldown": {"steps": 50}}, True),
        ("step", {"milestones": ({"fraction": 0.3},)}, True),
    ],
)
def test_depends_on_length_of_options(kind, fields, says):
    assert SCHEDULES[kind](**fields).depends_on_length == says


def test_until_ends_the_decay_early():
    rate = make("cosine", until={"steps": 800}, end=0.1)
    assert float(rate(800)) == float(rate(999)) == pytest.approx(0.1 * PEAK, rel=2e-7)
    assert float(rate(799)) > float(rate(800))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_inside_its_warmup_follows_the_same_line(kind, caplog):
    with caplog.at_level(logging.WARNING):
        short = make(kind, total=60, warmup=10_000, **KINDS[kind][0])
    assert "10000 steps of warm-up in a run of 60" in caplog.text
    if kind not in ("wsd",):  # whose descent is inside the run whatever its length
        np.testing.assert_allclose(values(short, np.arange(60)), PEAK * np.arange(60) / 10_000, rtol=3e-7)


def test_one_step_runs():
    for kind, (fields, _) in KINDS.items():
        fields = {**fields, "decay": {"steps": 1}} if kind == "wsd" else fields
        assert math.isfinite(float(make(kind, total=1, warmup=0, **fields)(0)))


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("linear", {"end": 0.1, "end_lr": 1e-5}, "exclude each other"),
        ("cosine", {"end": 1.5}, "schedule.end"),
        ("linear", {"end_lr": -1.0}, "schedule.end_lr"),
        ("linear", {"end_lr": 1.0}, "above the peak"),
        ("linear", {"until": {"steps": 100}}, "schedule.until"),
        ("rsqrt", {"timescale": 0.0}, "schedule.timescale"),
        ("wsd", {"decay": {"steps": 0}}, "less than one step"),
        ("step", {}, "schedule.milestones"),
        ("step", {"milestones": ({"epochs": 6}, {"epochs": 3})}, "ascending"),
        ("step", {"milestones": ({"epoch": 6},)}, 'schedule.milestones.0.*"epochs"'),
        ("step", {"milestones": ({"steps": 6},), "factor": 0.0}, "schedule.factor"),
        ("exponential", {"every": {"steps": 0}}, "less than one step"),
    ],
)
def test_refuses(kind, fields, message):
    with pytest.raises(UserError, match=message):
        make(kind, **fields)


def test_refuses_what_all_share():
    with pytest.raises(UserError, match=r"schedule\.warmup"):
        SCHEDULES["cosine"](warmup={"setps": 5})
    with pytest.raises(UserError, match="together above 1"):
        SCHEDULES["wsd"](warmup={"fraction": 0.5}, decay={"fraction": 0.6})
    with pytest.raises(UserError, match="at least one step"):
        make("cosine", total=0)
    with pytest.raises(UserError, match="lr"):
        make("cosine", peak=-1.0)
