import pytest

from vitax.cost.ledger import Ledger

SECONDS = {"startup": 1.0, "compile": 4.0, "train": 90.0, "data_wait": 10.0, "evaluation": 5.0, "checkpoint": 2.0}


def ledger(kind="cpu", devices=1, before=None):
    return Ledger(kind, devices, model_flops_per_example=3e9, batch_size=100, before=before or {})


def test_parts_add_up_to_the_wall_time():
    got = ledger().read(SECONDS, steps=50, last_step=50)
    assert got["wall_seconds"] == pytest.approx(sum(SECONDS.values()))
    assert got["examples_per_second"] == pytest.approx(5000 / 100)
    assert got["model_flops"] == 50 * 100 * 3e9


def test_restarts_accumulate_and_count_what_was_rolled_back():
    first = ledger().read(SECONDS, steps=50, last_step=50)
    second = ledger(before=first).read(SECONDS, steps=30, last_step=70)  # restored at 40
    assert second["starts"] == 2
    assert second["steps"] == 80
    assert second["rolled_back_steps"] == 10
    assert second["seconds"]["train"] == 180.0
    assert second["device_hours"]["cpu"] == pytest.approx(2 * 112 / 3600)


def test_devices_of_two_kinds_are_kept_apart():
    first = ledger("TPU v3", 8).read(SECONDS, 50, 50)
    second = ledger("TPU v4", 4, first).read(SECONDS, 50, 100)
    assert second["device_hours"] == {"TPU v3": pytest.approx(8 * 112 / 3600), "TPU v4": pytest.approx(4 * 112 / 3600)}


def test_core_days_are_measured_on_v3_and_converted_elsewhere():
    v3 = ledger("TPU v3", 8).read(SECONDS, 50, 50)
    assert v3["tpu_v3_core_days_source"] == "measured"
    assert v3["tpu_v3_core_days"] == pytest.approx(8 * 112 / 86400)
    cpu = ledger().read(SECONDS, 50, 50)
    assert cpu["tpu_v3_core_days_source"].startswith("converted")
    assert cpu["tpu_v3_core_days"] == pytest.approx(50 * 100 * 3e9 / (61.5e12 * 0.4) / 86400)


def test_mfu_is_known_only_where_the_chip_is():
    assert ledger().read(SECONDS, 50, 50)["mfu"] is None
    got = ledger("TPU v3", 8).read(SECONDS, 50, 50)["mfu"]
    assert got == pytest.approx(50 * 100 * 3e9 / 100 / (8 * 61.5e12))
