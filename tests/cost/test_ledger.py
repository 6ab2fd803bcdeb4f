import json

import pytest

from vitax.cost import ledger as ledgers
from vitax.cost import statement
from vitax.cost.ledger import PARTS, Ledger

SECONDS = {"startup": 1.0, "compile": 4.0, "productive": 90.0, "data_wait": 10.0, "evaluation": 5.0, "checkpoint": 2.0}
WALL = 112.0


def ledger(kind="cpu", devices=1, before=None, **more):
    more = {"executed_flops_per_step": 4e11} | more
    return Ledger(kind, devices, model_flops_per_example=3e9, batch_size=100, before=before or {}, **more)


def went_on(before, copy=None, at=None, **kwargs):
    """A start that restored ``copy`` (by default all that was done before it)."""
    started = ledger(before=before, **kwargs)
    copy = before if copy is None else copy
    started.restored(copy["last_step"] if at is None else at, copy)
    return started


def test_parts_add_up_to_the_wall_time():
    got = ledger().read(SECONDS, steps=50)
    assert tuple(got["seconds"]) == PARTS
    assert got["wall_seconds"] == sum(got["seconds"].values()) == WALL
    assert got["examples_per_second"] == pytest.approx(5000 / 100)
    assert got["model_flops"] == 50 * 100 * 3e9
    assert got["goodput"] == pytest.approx(90 / WALL)
    assert json.loads(json.dumps(got)) == got


def test_what_came_after_the_restored_checkpoint_is_lost():
    saved = ledger().read(SECONDS, steps=40)
    died = ledger().read({k: 1.5 * v for k, v in SECONDS.items()}, steps=60)
    got = went_on(died, saved).read(SECONDS, steps=30)
    assert (got["starts"], got["steps"], got["rolled_back_steps"], got["last_step"]) == (2, 90, 20, 70)
    assert got["seconds"] == {
        "startup": 1.5,
        "restart": 1.0,
        "compile": 1.5 * 4 + 4,
        "productive": 180.0,
        "data_wait": 20.0,
        "evaluation": 10.0,
        "checkpoint": 1.5 * 2 + 2,
        "lost": 0.5 * (90 + 10 + 5),
    }
    assert got["wall_seconds"] == pytest.approx(2.5 * WALL)
    assert got["examples_per_second"] == pytest.approx(70 * 100 / 200)
    assert got["device_hours"]["cpu"] == pytest.approx(2.5 * WALL / 3600)
    assert got["model_flops"] == 90 * 100 * 3e9  # paid for, kept or not


def test_a_clean_stop_loses_nothing():
    got = went_on(ledger().read(SECONDS, 50)).read(SECONDS, 10)
    assert got["seconds"]["lost"] == 0
    assert got["rolled_back_steps"] == 0


def test_without_a_checkpoint_all_progress_is_lost():
    started = ledger(before=ledger().read(SECONDS, 50))
    started.restored(0)
    got = started.read(dict.fromkeys(SECONDS, 0.0), 0)
    assert got["seconds"]["lost"] == 105
    assert got["seconds"]["productive"] == got["goodput"] == got["examples_per_second"] == 0
    assert (got["last_step"], got["rolled_back_steps"], got["seconds"]["startup"]) == (0, 50, 1.0)


@pytest.mark.parametrize("before", [{}, ledger().read({"startup": 3.0}, 0)], ids=["gone", "knows less"])
def test_the_checkpoints_copy_serves_where_the_file_knows_less(before):
    copy = ledger().read(SECONDS, 50)
    got = went_on(before, copy).read(SECONDS, 10)
    assert (got["starts"], got["steps"], got["rolled_back_steps"]) == (2, 60, 0)
    assert got["wall_seconds"] == 2 * WALL
    assert got["seconds"]["lost"] == 0


def test_a_start_that_dies_before_it_restored_costs_restart_and_rolls_nothing_back():
    first = ledger().read(SECONDS, 50)
    second = ledger(before=first).read({"startup": 7.0}, 0)
    assert (second["starts"], second["last_step"], second["rolled_back_steps"]) == (2, 50, 0)
    assert second["seconds"] == {**first["seconds"], "restart": 7.0}


def test_a_later_checkpoint_that_is_mended_takes_its_time_back():
    six = ledger().read(SECONDS, 60)
    nine = ledger().read({**SECONDS, "productive": 150.0}, 90)
    second = went_on(nine, six).read({"startup": 1.0, "productive": 10.0}, 5)
    assert second["seconds"]["lost"] == 60
    third = went_on(second, nine).read({"startup": 1.0}, 0)
    assert third["seconds"]["lost"] == 10
    assert (third["last_step"], third["steps"], third["rolled_back_steps"]) == (90, 95, 5)


def test_devices_of_two_kinds_are_kept_apart():
    first = ledger("TPU v3", 8).read(SECONDS, 50)
    second = went_on(first, kind="TPU v4", devices=4).read(SECONDS, 50)
    assert second["device_hours"] == {"TPU v3": pytest.approx(8 * 112 / 3600), "TPU v4": pytest.approx(4 * 112 / 3600)}


def test_core_days_are_measured_on_v3_converted_elsewhere_and_say_so():
    v3 = ledger("TPU v3", 8).read(SECONDS, 50)
    assert v3["tpu_v3_core_days_source"] == "measured"
    assert v3["tpu_v3_core_days"] == pytest.approx(8 * WALL / 86400)
    converted = 50 * 100 * 3e9 / (61.5e12 * 0.4) / 86400
    cpu = ledger().read(SECONDS, 50)
    assert cpu["tpu_v3_core_days_source"] == "converted from model FLOPs at 40% of 61.5 TFLOP/s a core"
    assert cpu["tpu_v3_core_days"] == pytest.approx(converted)
    both = went_on(v3, kind="TPU v4", devices=4).read(SECONDS, 50)
    assert both["tpu_v3_core_days_source"].startswith("partly converted")
    assert both["tpu_v3_core_days"] == pytest.approx(8 * WALL / 86400 + converted)


def test_utilisation_is_known_only_where_every_chip_is():
    cpu = ledger().read(SECONDS, 50)
    assert cpu["mfu"] is cpu["hfu"] is None
    v3 = ledger("TPU v3", 8).read(SECONDS, 50)
    assert v3["mfu"] == pytest.approx(50 * 100 * 3e9 / 100 / (8 * 61.5e12))
    assert v3["hfu"] == pytest.approx(v3["mfu"] * 4 / 3)
    assert went_on(cpu, kind="TPU v3").read(SECONDS, 50)["mfu"] is None
    both = went_on(v3, kind="TPU v4", devices=4).read(SECONDS, 50)
    assert both["mfu"] == pytest.approx(2 * 50 * 100 * 3e9 / (100 * 8 * 61.5e12 + 100 * 4 * 275e12))
    uncounted = ledger("TPU v3", 8, executed_flops_per_step=None).read(SECONDS, 50)
    assert uncounted["executed_flops"] is uncounted["hfu"] is None
    assert uncounted["mfu"] == v3["mfu"]


def test_dollars_are_by_the_chip_and_say_where_the_price_is_from():
    v3 = ledger("TPU v3", 8).read(SECONDS, 50)
    assert v3["usd"] == pytest.approx(4 * WALL / 3600 * 2.00)  # two devices a chip
    assert v3["usd_source"] == "list price, indicative, as of 2025"
    cheap = ledger("TPU v4", 4, chip={"usd_per_hour": 1.1}).read(SECONDS, 50)
    assert cheap["usd"] == pytest.approx(4 * WALL / 3600 * 1.1)
    assert cheap["usd_source"] == "at the price given"
    cpu = ledger().read(SECONDS, 50)
    assert cpu["usd"] is None
    assert "no price known for cpu" in cpu["usd_source"]
    mixed = went_on(v3).read(SECONDS, 10)
    assert mixed["usd"] is None
    assert ledger(chip={"usd_per_hour": 0.36}).read(SECONDS, 50)["usd"] == pytest.approx(WALL / 10000)


def test_prices_can_be_given_afterwards():
    both = went_on(ledger("TPU v3", 8).read(SECONDS, 50)).read(SECONDS, 10)
    got = ledgers.priced(both, {"cpu": 3.6})
    assert got["usd"] == pytest.approx(4 * WALL / 3600 * 2.00 + WALL / 1000)
    assert got["usd_source"] == "list price, indicative, as of 2025 and at the price given"
    assert {**got, "usd": None, "usd_source": 0, "by_device_kind": 0} == {**both, "usd_source": 0, "by_device_kind": 0}
    assert both["usd"] is None


def test_a_chip_of_the_recipe_changes_the_peak():
    plain, slow = (ledger("TPU v4", 4, chip=c).read(SECONDS, 50) for c in ({}, {"peak_bf16_flops": 137.5e12}))
    assert slow["mfu"] == pytest.approx(2 * plain["mfu"])


def test_a_person_reads_it_in_one_line_and_in_a_table():
    paper = {"paper": "arXiv:2010.11929", "row": "Table 3, ViT-L/16", "core_days": 680}
    got = ledger("TPU v3", 8, paper=paper).read(SECONDS, 50)
    assert statement.line(got) == (
        "cost: 112.0 s wall, 80% productive, 1.5e+13 model FLOPs, 0.0104 TPUv3-core-days (measured), "
        "$0.25 (list price, indicative, as of 2025)"
    )
    text = "\n".join(statement.lines(got))
    for part in ("680 TPUv3-core-days (arXiv:2010.11929, Table 3, ViT-L/16)", "goodput 80.4%", "data_wait"):
        assert part in text
    assert "price unknown" in statement.line(ledger().read(SECONDS, 50))


@pytest.mark.parametrize(("seconds", "text"), [(45.24, "45.2 s"), (738, "12.3 min"), (27000, "7.5 h")])
def test_durations(seconds, text):
    assert statement.duration(seconds) == text
