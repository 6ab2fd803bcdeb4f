"""EfficientNet's recipes carry the paper's settings."""

import pytest

from vitax import config_files, recipe

# EfficientNet, arXiv:1905.11946, written down here once more: width, depth, resolution, dropout, top-1.
EFFICIENTNET = {
    "B0": (1.0, 1.0, 224, 0.2, 77.1),
    "B1": (1.0, 1.1, 240, 0.2, 79.1),
    "B2": (1.1, 1.2, 260, 0.3, 80.1),
    "B3": (1.2, 1.4, 300, 0.3, 81.6),
    "B4": (1.4, 1.8, 380, 0.4, 82.9),
    "B5": (1.6, 2.2, 456, 0.4, 83.6),
    "B6": (1.8, 2.6, 528, 0.5, 84.0),
    "B7": (2.0, 3.1, 600, 0.5, 84.3),
    "L2": (4.3, 5.3, 475, 0.5, None),
}


@pytest.mark.parametrize("variant", EFFICIENTNET)
def test_efficientnet_presets_carry_the_papers_settings(variant):
    c = config_files.load(f"efficientnet_i1k:{variant}")
    top1 = c.paper.expected.get("imagenet top-1, Table 2")
    assert (c.model.width_factor, c.model.depth_factor, c.data.image_size, c.model.dropout, top1) == EFFICIENTNET[
        variant
    ]
    o, s = c.optimizer, c.schedule
    assert (o.kind, o.lr, o.decay, o.momentum, o.weight_decay) == ("rmsprop", 0.256, 0.9, 0.9, 1e-5)
    assert (s.kind, s.factor, s.every.to_dict()) == ("exponential", 0.97, {"epochs": 2.4})


def test_efficientnet_decays_all_but_its_norms():
    built = recipe.load("efficientnet_i1k:B0")
    model = built.model()
    assert (model.stochastic_depth, model.norm_momentum, model.activation, model.squeeze) == (0.2, 0.99, "silu", 0.25)
    decays = {rule.name: rule.decays for rule in built.optimizer.describe(built.abstract_params)}
    assert {name for name, on in decays.items() if not on} == {name for name in decays if "norm/" in name}


def test_every_efficientnet_is_a_variant():
    assert set(config_files.module("efficientnet_i1k").VARIANTS) == set(EFFICIENTNET)
