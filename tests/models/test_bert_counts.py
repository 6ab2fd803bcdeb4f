"""Parameters and cost of the published BERTs, from shapes alone."""

import subprocess
import sys

import jax
import pytest

from vitax.core import tree
from vitax.core.errors import UserError
from vitax.cost import flops
from vitax.models import bert_sizes, table

# With both heads of the pre-training, and with neither (counted on transformers' models).
PARAMETERS = {"BERT-base": (110_106_428, 109_482_240), "BERT-large": (336_226_108, 335_141_888)}
# Of the encoder alone, by tokens; 2 FLOPs a multiply-accumulate.
GFLOPS = {"BERT-base": {128: 22.35, 512: 96.6}, "BERT-large": {128: 78.92, 512: 335.0}}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_cost_equal_the_published_ones(name):
    summary = table.summary(name)
    assert summary["parameters"] == PARAMETERS[name][0]
    assert (summary["tokens"], summary["image_size"]) == (512, None)
    model, variables, _ = table.abstract(name, head="none")
    assert tree.size(variables["params"]) == PARAMETERS[name][1]
    pooler = 2 * model.width**2
    for length, gflops in GFLOPS[name].items():
        cost = flops.forward_flops(model, variables, jax.ShapeDtypeStruct((1, length), int))
        assert (2 * cost.macs - pooler) / 1e9 == pytest.approx(gflops, rel=5e-4)


def test_minilm_has_its_size():
    assert table.summary("MiniLM-L6")["parameters"] == 22_713_216


def test_every_size_is_counted():
    assert set(bert_sizes.SIZES) == {*PARAMETERS, "MiniLM-L6"}


def test_wrong_sizes_say_what_was_meant():
    with pytest.raises(UserError, match='Did you mean "BERT-base"'):
        bert_sizes.fields("BERT-bas")


def test_sizes_import_neither_jax_nor_flax():
    code = "import sys, vitax.models.bert_sizes; assert not {'jax', 'flax'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
