import json
import logging

import pytest

from vitax.core.errors import RunError, UserError
from vitax.cost.ledger import Ledger
from vitax.train import account as accounts
from vitax.train.account import Account
from vitax.train.clock import PARTS, Clock


def account(path, primary=True):
    return Account(Ledger("cpu", 1, 3e9, 10), path, Clock(), primary)


def test_it_is_written_while_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(accounts, "_EVERY_SECONDS", 0.01)
    path = tmp_path / "ledger.json"
    with account(path) as running:
        running.restored(0, {})
        for step in (1, 2):
            running.reached(step)
            for _ in range(1000):
                if path.exists() and json.loads(path.read_text())["last_step"] == step:
                    break
                running._done.wait(0.01)
            else:
                pytest.fail(f"step {step} was never written")
    assert not list(tmp_path.glob(".*"))


def test_a_failed_run_leaves_its_account_and_bad_input_does_not(tmp_path, capsys):
    with pytest.raises(RunError), account(tmp_path / "failed.json"):
        raise RunError
    assert json.loads((tmp_path / "failed.json").read_text())["starts"] == 1
    assert "cost: " in capsys.readouterr().err
    with pytest.raises(UserError), account(tmp_path / "bad.json"):
        raise UserError
    with account(tmp_path / "second.json", primary=False):
        pass
    assert not (tmp_path / "bad.json").exists()
    assert not (tmp_path / "second.json").exists()
    assert "cost" not in capsys.readouterr().err


def test_a_file_that_cannot_be_written_does_not_stop_the_run(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "vitax"), account(tmp_path / "gone" / "ledger.json"):
        pass
    assert "was not written" in caplog.text


def test_reading_a_clock_moves_nothing():
    clock = Clock()
    with clock.part("compile"):
        first, second = clock.read(), clock.read()
    assert tuple(first) == PARTS
    assert second["compile"] > first["compile"] > 0
    assert second["startup"] == first["startup"]
    assert clock.read()["compile"] >= second["compile"]
