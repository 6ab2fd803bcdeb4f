"""Laws of the rule engine: convert and convert back is the identity, both ways."""

import numpy as np
import pytest

from vitax.checkpoint import convert
from vitax.checkpoint.convert import Op, Pattern, Rule, concat, divide_axis, split, squeeze, transpose, unsqueeze
from vitax.checkpoint.names import google, huggingface, timm
from vitax.core.errors import UserError

SIZES = {"num_heads": 2}
OPS: dict[str, tuple[Op, int, int, tuple[int, ...]]] = {
    # op, arrays there, arrays here, shape there
    "same": (convert.SAME, 1, 1, (3, 4)),
    "transpose": (transpose(2, 3, 1, 0), 1, 1, (5, 3, 2, 4)),
    "split": (split(3), 1, 3, (6, 4)),
    "split_columns": (split(3, 1), 1, 3, (4, 6)),
    "concat": (concat(2), 2, 1, (3, 4)),
    "squeeze": (squeeze(0, 1), 1, 1, (1, 1, 3, 4)),
    "unsqueeze": (unsqueeze(0), 1, 1, (3, 4)),
    "heads": (divide_axis(1, "num_heads"), 1, 1, (3, 4)),
    "qkv": (split(3).then(transpose(1, 0)).then(divide_axis(1, "num_heads")), 1, 3, (12, 5)),
}


def arrays(count, shape, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for _ in range(count)]


def equal(left, right):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.mark.parametrize("name", OPS)
def test_every_op_has_its_inverse(name):
    op, there, here, shape = OPS[name]
    start = arrays(there, shape)
    ours = op.here(start, SIZES)
    assert len(ours) == here
    back = op.there(ours, SIZES)
    again = op.here(back, SIZES)
    for left, right in ((start, back), (ours, again)):
        assert len(left) == len(right)
        for a, b in zip(left, right):
            np.testing.assert_array_equal(a, b)


def test_numbers_in_names():
    pattern = Pattern("block{s+1}/unit{u+1:02}/conv")
    match = pattern.regex().fullmatch("block2/unit03/conv")
    assert match is not None
    assert pattern.read(match) == {"s": 1, "u": 2}
    assert pattern.write({"s": 1, "u": 2}) == "block2/unit03/conv"
    assert pattern.write({"s": 1, "u": 99}) == "block2/unit100/conv"
    assert pattern.regex().fullmatch("block2/unit3/conv") is None
    assert Pattern("a.b").regex().fullmatch("axb") is None


def test_a_stack_of_layers_comes_apart_and_together():
    table = (
        Rule("block_{i:02}/kernel", "blocks/kernel"),
        Rule(("block_{i:02}/q", "block_{i:02}/k"), "blocks/qk", split(2)),
    )
    theirs = {"blocks/kernel": arrays(1, (12, 2, 3))[0], "blocks/qk": arrays(1, (12, 4))[0]}
    ours = convert.to_ours(table, theirs)
    assert len(ours.arrays) == 36
    np.testing.assert_array_equal(ours.arrays["block_11/kernel"], theirs["blocks/kernel"][11])
    np.testing.assert_array_equal(ours.arrays["block_07/k"], theirs["blocks/qk"][7, 2:])
    equal(convert.to_theirs(table, ours.arrays).arrays, theirs)
    one = {name: x[:1] for name, x in theirs.items()}
    equal(convert.to_theirs(table, convert.to_ours(table, one).arrays).arrays, one)
    with pytest.raises(UserError, match=r"a stack needs layers 0 to n, there are \[0, 2\]"):
        convert.to_theirs(
            table, {"block_00/kernel": theirs["blocks/kernel"][0], "block_02/kernel": theirs["blocks/kernel"][1]}
        )


def test_what_no_rule_knows_and_what_lacks_its_counterparts_is_said():
    table = (Rule("a", "x"), Rule("q{i}", ("k{i}", "v{i}"), concat(2)))
    x = np.zeros(2)
    done = convert.to_ours(table, {"x": x, "k1": x, "k2": x, "v2": x, "z": x})
    assert sorted(done.arrays) == ["a", "q2"]
    assert done.unexpected == ["z"]
    assert done.incomplete == ["k1 (without v1)"]
    assert sorted(done.used) == ["k2", "v2", "x"]


def test_an_array_that_an_op_cannot_take_is_named():
    with pytest.raises(UserError, match=r"x: an array of shape \[3\] is not what its layout has here"):
        convert.to_ours((Rule("a", "x", transpose(1, 0)),), {"x": np.zeros(3)})


def vit_theirs(table):
    """One array for every pattern of a ViT's table, of a shape that its op takes."""
    made = {}
    for rule in table:
        if str(rule.ours).startswith(("stem", "('stem")) or rule.ours == "distillation":
            continue
        ours = (rule.ours,) if isinstance(rule.ours, str) else rule.ours
        filled = {}
        for name in (Pattern(text).write({"i": i}) for text in ours for i in range(2)):
            filled[name] = arrays(1, shape_of(name), seed=len(name))[0]
        made.update(filled)
    return made


def shape_of(name):
    parts = name.split("/")
    if parts[-2:] in (["query", "kernel"], ["key", "kernel"], ["value", "kernel"]):
        return (6, 2, 3)
    if parts[-2:] in (["query", "bias"], ["key", "bias"], ["value", "bias"]):
        return (2, 3)
    if name.endswith("out/kernel") and "attention" in name:
        return (2, 3, 6)
    if name == "embedding/kernel":
        return (4, 2, 3, 6)
    if parts[-1] in ("cls", "probe", "registers", "pos_embedding"):
        return (1, 1, 6)
    return (6, 6) if parts[-1] == "kernel" else (6,)


LAYOUTS = (*google.LAYOUTS, *timm.LAYOUTS, *huggingface.LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.title)
def test_every_table_is_its_own_inverse(layout):
    ours = vit_theirs(layout.table)
    theirs = convert.to_theirs(layout.table, ours, SIZES)
    assert theirs.unexpected == theirs.incomplete == []
    back = convert.to_ours(layout.table, theirs.arrays, SIZES)
    equal(back.arrays, ours)
    equal(convert.to_theirs(layout.table, back.arrays, SIZES).arrays, theirs.arrays)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.title)
def test_no_name_is_in_two_rules(layout):
    for sides in ([rule.ours for rule in layout.table], [rule.theirs for rule in layout.table]):
        names = [name for side in sides for name in ((side,) if isinstance(side, str) else side)]
        assert len(names) == len(set(names))


def test_units_of_a_hybrid_keep_their_numbers_and_lose_leading_axes():
    rng = np.random.default_rng(0)
    theirs = {
        "conv_root/kernel": rng.standard_normal((7, 7, 3, 64)),
        "gn_root/scale": rng.standard_normal((1, 1, 1, 64)),
        "block1/unit1/conv_proj/kernel": rng.standard_normal((1, 1, 64, 256)),
        "block1/unit1/gn_proj/bias": rng.standard_normal((1, 1, 1, 256)),
        "block3/unit9/conv2/kernel": rng.standard_normal((3, 3, 8, 8)),
        "block3/unit9/gn3/scale": rng.standard_normal(32),
    }
    done = convert.to_ours(google.PRE_LINEN.table, theirs)
    assert done.unexpected == []
    equal(
        done.arrays,
        {
            "stem/root/kernel": theirs["conv_root/kernel"],
            "stem/root_norm/scale": theirs["gn_root/scale"][0, 0, 0],
            "stem/block_1/unit_01/proj/kernel": theirs["block1/unit1/conv_proj/kernel"],
            "stem/block_1/unit_01/proj_norm/bias": theirs["block1/unit1/gn_proj/bias"][0, 0, 0],
            "stem/block_3/unit_09/conv_2/kernel": theirs["block3/unit9/conv2/kernel"],
            "stem/block_3/unit_09/norm_3/scale": theirs["block3/unit9/gn3/scale"],
        },
    )
