"""Parameters and cost of the published GPTs, from shapes alone."""

import subprocess
import sys

import pytest

from vitax.core.errors import UserError
from vitax.models import gpt_sizes, table

# Counted on transformers' models.
PARAMETERS = {
    "GPT-1": 116_534_784,
    "GPT-2-small": 124_439_808,
    "GPT-2-medium": 354_823_168,
    "GPT-2-large": 774_030_080,
    "GPT-2-XL": 1_557_611_200,
}
# Of one sequence of 1024 tokens, 2 FLOPs a multiply-accumulate.
GFLOPS = {"GPT-2-small": 291.6, "GPT-2-medium": 827.0, "GPT-2-large": 1774.6, "GPT-2-XL": 3506.7}
# GPT-3, arXiv:2005.14165, table 2.1, in millions as printed.
GPT3 = {
    "125M": 125,
    "350M": 350,
    "760M": 760,
    "1.3B": 1_300,
    "2.7B": 2_700,
    "6.7B": 6_700,
    "13B": 13_000,
    "175B": 175_000,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_cost_equal_the_published_ones(name):
    summary = table.summary(name)
    assert summary["parameters"] == PARAMETERS[name]
    if name in GFLOPS:
        assert 2 * summary["gmacs"] == pytest.approx(GFLOPS[name], abs=0.05)
    assert (summary["tokens"], summary["image_size"]) == (512 if name == "GPT-1" else 1024, None)


def by_hand(name):
    size = gpt_sizes.SIZES[name]
    block = 12 * size.width**2 + 13 * size.width
    return (size.vocab_size + size.context + 2) * size.width + size.depth * block


@pytest.mark.parametrize(("name", "millions"), GPT3.items())
def test_gpt_3_has_its_printed_size(name, millions):
    assert by_hand("GPT-2-small") == PARAMETERS["GPT-2-small"]
    assert by_hand(f"GPT-3-{name}") / 1e6 == pytest.approx(millions, rel=0.03)


def test_every_size_is_counted():
    assert set(gpt_sizes.SIZES) == {*PARAMETERS, *(f"GPT-3-{n}" for n in GPT3)}


def test_wrong_sizes_say_what_was_meant():
    with pytest.raises(UserError, match='Did you mean "GPT-2-small"'):
        gpt_sizes.fields("GPT-2-smal")


def test_sizes_import_neither_jax_nor_flax():
    code = "import sys, vitax.models.gpt_sizes; assert not {'jax', 'flax'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
