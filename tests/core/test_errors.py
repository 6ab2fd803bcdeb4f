import pytest

from vitax.core.errors import RunError, UserError, pick, suggest


def test_suggest_puts_the_nearest_first():
    names = ["warmup", "weight_decay", "decay"]
    assert suggest("wieght_decay", names).startswith(' Did you mean "weight_decay"')
    assert suggest("zzz", names) == ""
    assert suggest("a", []) == ""


def test_suggest_is_limited():
    assert suggest("block", [f"block_{i}" for i in range(9)], limit=2).count("block_") == 2


def test_pick():
    table = {"adam": 1, "sgd": 2}
    assert pick(table, "sgd", "optimizer.kind") == 2
    with pytest.raises(UserError) as error:
        pick(table, "adm", "optimizer.kind")
    message = str(error.value)
    assert message.startswith("optimizer.kind")
    assert 'Did you mean "adam"?' in message
    assert "Valid: adam, sgd." in message


def test_kinds_of_errors_are_apart():
    assert not issubclass(UserError, RunError)
    assert not issubclass(RunError, UserError)
