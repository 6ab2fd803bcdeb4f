import dataclasses
from typing import Literal

import pytest

from vitax.construct import check, construct
from vitax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Thing:
    width: int
    rate: float = 0.0
    name: str = "x"
    mode: Literal["tok", "gap"] = "tok"
    size: int | tuple[int, int] | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    patterns: tuple[str, ...] = ()


TABLE = {"thing": Thing}


def build(**fields):
    return construct(TABLE, {"kind": "thing", **fields}, "part", width=4)


def test_types_are_taken_as_they_are_meant():
    assert build(rate=1) == Thing(4, 1.0)
    assert isinstance(build(rate=1).rate, float)
    assert build(width=1e3) == Thing(1000)
    assert build(size=[3, 4]).size == (3, 4)
    assert build(betas=[0.5, 1]).betas == (0.5, 1.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"widht": 3}, r'part.widht: unknown field. Did you mean "width"\? Valid: .*width'),
        ({"hidden_size": 3}, 'Did you mean "width"'),
        ({"rate": "fast"}, "part.rate: expected float, got 'fast'"),
        ({"width": 3.5}, "part.width: expected int, got 3.5"),
        ({"width": True}, "part.width: expected int, got True"),
        ({"mode": "gab"}, "part.mode: 'gab' is not one of 'tok', 'gap'. Did you mean \"gap\""),
        ({"size": "big"}, "part.size: expected int or tuple"),
        ({"betas": (1, 2, 3)}, "part.betas: expected 2 elements, got 3"),
        ({"patterns": ("a", 3)}, "part.patterns.1: expected str, got 3"),
    ],
)
def test_errors_name_path_and_mend(fields, message):
    with pytest.raises(UserError, match=message):
        build(**fields)


def test_kind_and_missing():
    with pytest.raises(UserError, match='part.kind: unknown name "think". Did you mean "thing"'):
        construct(TABLE, {"kind": "think"}, "part")
    with pytest.raises(UserError, match="part.kind: missing"):
        construct(TABLE, {}, "part")
    with pytest.raises(UserError, match="part.width: missing. Give it in the recipe or as --config.part.width"):
        construct(TABLE, {"kind": "thing"}, "part")


def test_none_only_where_it_may_stand():
    assert check(None, int | None, "x") is None
    with pytest.raises(UserError, match="x: expected int"):
        check(None, int, "x")
