"""efficientnet_pytorch's names, and weights that are a part of a larger model."""

import re
import shutil

import jax
import numpy as np
import pytest

from tests.published import FILES
from vitax.checkpoint import convert, files, weight_writer
from vitax.checkpoint.names.efficientnet_pytorch import LAYOUT
from vitax.core import tree
from vitax.core.errors import UserError
from vitax.models.efficientnet import EfficientNet
from vitax.parallel.rules import unbox
from vitax.weights import reading


def ours(**fields):
    """Random variables of a B1-deep network, by name."""
    model = EfficientNet(depth_factor=1.1, num_classes=3, stem_channels=8, top_channels=8, **fields)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    variables = dict(unbox(jax.eval_shape(model.init, jax.eval_shape(jax.random.key, 0), image)))
    rng = np.random.default_rng(0)
    leaves = tree.named_leaves({**variables.pop("params"), **variables})
    return {name: rng.standard_normal(x.shape, np.float32) for name, x in leaves}


def in_their_names(variables):
    done = convert.to_theirs(LAYOUT.table, variables)
    assert not done.unexpected + done.incomplete
    found = {re.match(r"_stages\.(\d+)\.(\d+)\.", name) for name in done.arrays} - {None}
    row = sorted({(int(m[1]), int(m[2])) for m in found})
    places = {f"_stages.{s}.{b}.": f"_blocks.{i}." for i, (s, b) in enumerate(row)}
    assert len(places) == 23  # of B1
    return {re.sub(r"_stages\.\d+\.\d+\.", lambda m: places[m[0]], name): x for name, x in done.arrays.items()}


@pytest.mark.parametrize(("fields", "activation"), [({}, "silu"), ({"squeeze": 0.0}, "relu6")])
def test_blocks_in_a_row_become_stages(tmp_path, fields, activation):
    want = ours(**fields)
    theirs = in_their_names(want) | {"_blocks.0._bn1.num_batches_tracked": np.array(7)}
    assert theirs["_blocks.2._expand_conv.weight"].shape == (96, 16, 1, 1)
    assert ("_blocks.0._se_reduce.weight" in theirs) == (activation == "silu")
    weight_writer.write(tmp_path / "w.npz", theirs.items(), {})
    found = reading.load(str(tmp_path / "w.npz")).whole()
    assert found.params.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(found.params[name], value, err_msg=name)
    model = found.recipe["model"]
    assert (model["activation"], model["padding"], model["norm_eps"]) == (activation, "same", 1e-3)
    assert len(found.recipe["objective"]["mean"]) == 3
    assert (found.recipe["objective"]["mean"][0] == 0.5) == (activation == "relu6")
    assert any("counts steps of training" in line for line in found.lines)


def test_a_part_that_fits_is_named(tmp_path):
    source = FILES["hf_dinov2"]
    found = reading.load(str(source))
    arrays = files.read(str(source)).arrays
    inner = {f"model.backbone.{n.removeprefix('dinov2.')}": x for n, x in arrays.items()}
    held = inner | {"model.decoder.weight": np.zeros(2)}
    weight_writer.write(tmp_path / "w.npz", held.items(), {})
    for beside in source.parent.glob("*config.json"):
        shutil.copy(beside, tmp_path)
    with pytest.raises(UserError, match=r'with "model.backbone." in front. Name that part: .*w.npz:model.backbone$'):
        reading.load(str(tmp_path / "w.npz"))
    part = reading.load(f"{tmp_path}/w.npz:model.backbone")
    assert any("1 arrays outside of model.backbone." in line for line in part.lines)
    for name in part.params.keys() - {"head/kernel", "head/bias"}:
        np.testing.assert_array_equal(part.params[name], found.params[name])


def test_a_file_of_which_nothing_is_known(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.zeros(1))
    with pytest.raises(UserError, match="No layout has any of its names. Unknown names"):
        reading.load(str(tmp_path / "w.npz"))
