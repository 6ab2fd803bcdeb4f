"""Parameter counts and costs of the published EfficientNets, from shapes alone."""

import jax
import pytest

from vitax import catalogue
from vitax.core import tree
from vitax.core.errors import UserError
from vitax.models import efficientnet_sizes, table

# Counted on the reference implementations, 1000 classes; running statistics are not parameters.
PARAMETERS = {
    "EfficientNet-B0": 5_288_548,
    "EfficientNet-B1": 7_794_184,
    "EfficientNet-B2": 9_109_994,
    "EfficientNet-B3": 12_233_232,
    "EfficientNet-B4": 19_341_616,
    "EfficientNet-B5": 30_389_784,
    "EfficientNet-B6": 43_040_704,
    "EfficientNet-B7": 66_347_960,
    "EfficientNet-L2": 480_309_308,
}
# Printed GMACs of one forward pass, (image size, number).
GMACS = {
    "EfficientNet-B0": [(224, 0.39)],
    "EfficientNet-B1": [(240, 0.69)],
    "EfficientNet-B2": [(260, 0.99)],
    "EfficientNet-B3": [(300, 1.83)],
    "EfficientNet-B4": [(380, 4.39)],
    "EfficientNet-B5": [(456, 10.27)],
    "EfficientNet-B6": [(528, 19.07)],
    "EfficientNet-B7": [(600, 37.75)],
    "EfficientNet-L2": [(475, 170.9), (800, 475.7)],
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_cost_equal_the_published_ones(name):
    summary = table.summary(name)
    assert summary["parameters"] == PARAMETERS[name]
    assert (summary["tokens"], summary["image_size"]) == (None, GMACS[name][0][0])
    for size, gmacs in GMACS[name]:
        cost = (summary if size == summary["image_size"] else table.summary(name, size))["gmacs"]
        # Two decimals are coarser than 0.5% for the smallest alone.
        assert cost == pytest.approx(gmacs, rel=0.005, abs=0.005 if gmacs < 1 else 0)


def test_every_published_model_is_counted():
    assert {name for name in table.published() if name.startswith("EfficientNet-")} == set(PARAMETERS)


def test_lite0_scales_neither_ends_nor_has_squeeze_and_excite():
    lite = {"squeeze": 0.0, "activation": "relu6", "fixed_ends": True}
    _, variables, _ = table.abstract("EfficientNet-B0", **lite)
    assert tree.size(variables["params"]) == 4_652_008  # as counted on the port of Lite0
    # Wider and deeper, its ends stay: Lite4 is 1.4 x 1.8.
    model, variables, _ = table.abstract("EfficientNet-B4", **lite)
    assert tree.size(variables["params"]) == 13_006_568
    assert model.blocks == (1, 4, 4, 6, 6, 8, 1)


def test_channels_are_rounded_to_eights_without_losing_a_tenth():
    assert [efficientnet_sizes.scaled_channels(c, f) for c, f in ((32, 4.3), (320, 1.1), (16, 1.1), (8, 0.1))] == [
        *(136, 352, 16, 8)
    ]
    # The nearest multiple of 8 is 8, more than a tenth below 11.
    assert efficientnet_sizes.scaled_channels(11, 1.0) == 16


def test_wrong_sizes_say_what_was_meant():
    with pytest.raises(UserError, match="Valid: B0, B1"):
        efficientnet_sizes.fields("BO")
    with pytest.raises(UserError, match=r"model.stages.0: expected \(side of the kernel"):
        table.abstract("EfficientNet-B0", stages=((3, 1, 6, 16),))


def test_the_catalogue_prints_sizes_and_no_tokens():
    (row,) = catalogue.models("EfficientNet-B1")
    assert jax.tree.leaves(row) == [pytest.approx(0.687, abs=1e-3), 240, "EfficientNet-B1", 7_794_184]
    assert list(catalogue.model_lines([row]))[1].split() == ["EfficientNet-B1", "7,794,184", "0.69", "-", "240"]
