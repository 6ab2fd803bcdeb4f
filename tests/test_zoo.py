"""One model by three names; what the names say of heads, sizes and numerics."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import vitax
from vitax import zoo
from vitax.core import tree
from vitax.core.errors import UserError

AUGREG = "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_224.npz"
# Ours, Google's and AugReg's, timm's: the same parameters.
ALIKE = [
    ("ViT-B/16", "ViT-B_16", AUGREG, "vit_base_patch16_224"),
    ("ViT-Ti/16", "ViT-Ti_16", "Ti_16", "deit_tiny_patch16_224"),
    ("ViT-H/14", "ViT-H_14", "vit_huge_patch14_224"),
    ("R50+ViT-L/32", "R50+ViT-L_32", "R50_L_32", "vit_large_r50_s32_224"),
    ("R+ViT-Ti/16", "R_Ti_16-i1k-300ep-lr_0.001-aug_none-wd_0.03-do_0.1-sd_0.1", "vit_tiny_r_s16_p8_224"),
    ("BiT-R50x1", "BiT-M-R50x1", "BiT-S-R50x1", "resnetv2_50x1_bit.goog_in21k_ft_in1k"),
    ("EfficientNet-B0", "tf_efficientnet_b0", "tf_efficientnet_b0.ns_jft_in1k"),
    ("EfficientNet-L2", "tf_efficientnet_l2"),
]


def shapes(name, **fields):
    return vitax.create_model(name, abstract=True, unroll=False, **fields)[1]


@pytest.mark.parametrize("names", ALIKE, ids=lambda names: names[0])
def test_the_grammars_agree(names):
    first = shapes(names[0])
    for name in names[1:]:
        assert tree.difference(first, shapes(name)) == [], name


def test_every_name_stands_for_fields_that_exist():
    for name, named in zoo.names().items():
        model, _ = build(named)
        assert model is not None, name
    assert len(zoo.names()) > 100


def build(named):
    from vitax.construct import construct
    from vitax.models import table

    fields = {**table.published()[named.published], **named.changes}
    return construct(table.MODELS, fields, "test"), named


def test_names_bring_what_came_with_the_weights():
    assert vitax.create_model("ViT-B/16", abstract=True)[0].gelu == "tanh"
    assert vitax.create_model("vit_base_patch16_384", abstract=True)[0].gelu == "erf"
    assert shapes("vit_base_patch16_384")["params"]["pos_embedding"].shape == (1, 24 * 24 + 1, 768)
    assert shapes("vit_base_patch16_224.augreg_in21k")["params"]["head"]["bias"].shape == (21_843,)
    assert shapes(AUGREG.partition("--")[0])["params"]["head"]["bias"].shape == (21_843,)
    dino = shapes("vit_small_patch14_reg4_dinov2.lvd142m")["params"]
    assert dino["registers"].shape == (1, 4, 384)
    assert "layer_scale_1" in dino["encoder"]["block_00"]
    assert "head" not in dino
    assert vitax.create_model("BiT-M-R50x1", abstract=True)[0].std_eps == 1e-10
    assert vitax.create_model("resnetv2_50x1_bit", abstract=True)[0].std_eps == 1e-8
    stem = vitax.create_model("vit_small_r26_s32_224", abstract=True)[0]
    assert (stem.stem_std_eps, stem.stem_std_eps_added_to) == (1e-8, "variance")
    assert vitax.create_model("R26_S_32", abstract=True)[0].stem_std_eps_added_to == "deviation"
    ported = vitax.create_model("efficientnet_b0", abstract=True)[0]
    assert (ported.padding, ported.norm_eps) == ("symmetric", 1e-5)
    original = vitax.create_model("tf_efficientnet_b0", abstract=True)[0]
    assert (original.padding, original.norm_eps) == ("same", 1e-3)


def test_classes_size_and_fields():
    model, variables = vitax.create_model("ViT-S/32", num_classes=7, image_size=(64, 96), depth=1, zero_head=False)
    output = model.apply(variables, jnp.ones((2, 64, 96, 3)), return_intermediates=True)
    assert output.logits.shape == (2, 7)
    assert output.features.shape == (2, 384)
    assert output.intermediates["patch_tokens"].shape == (2, 6, 384)
    again = vitax.create_model("ViT-S/32", num_classes=7, image_size=(64, 96), depth=1, zero_head=False)[1]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), variables, again))
    assert vitax.create_model("ViT-Ti/16", num_classes=0, abstract=True)[0].num_classes == 0


def test_unknown_names_say_what_was_meant():
    for name, words in (
        ("vit_bse_patch16_224", 'no model "vit_bse_patch16_224".*Did you mean "vit_base_patch16_224"'),
        ("vit_base_patch16_224.augreg99", 'no tag "augreg99".*Did you mean "augreg_in1k"|Tags: augreg'),
        ("BiT-X-R50x1", "Did you mean"),
    ):
        with pytest.raises(UserError, match=words):
            vitax.create_model(name)
    with pytest.raises(UserError, match=r"create_model\.widht: unknown field. Did you mean .width"):
        vitax.create_model("ViT-B/16", widht=3)
    with pytest.raises(UserError, match="do not divide into patches"):
        vitax.create_model("ViT-B/16", image_size=225, abstract=True)


def test_listing():
    assert vitax.list_models("BiT-M-*") == sorted(
        f"BiT-M-R{s}" for s in ("101x1", "101x3", "152x1", "152x2", "152x4", "200x3", "50x1", "50x2", "50x3")
    )
    assert "vit_base_patch16_224" in vitax.list_models("vit_base*")
    assert vitax.list_models("no such*") == []


def test_importing_vitax_stays_cheap():
    code = "import sys, json, vitax; vitax.create_model; print(json.dumps('jax' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
