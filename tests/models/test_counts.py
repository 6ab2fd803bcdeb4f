"""Parameter counts and costs of the published models, from shapes alone."""

import subprocess
import sys

import pytest

from vitax.core.errors import UserError
from vitax.models import bit_sizes, table, vit_sizes

# Counted on the reference implementations, 1000 classes (So400m: no head).
PARAMETERS = {
    "ViT-Ti/16": 5_717_416,
    "ViT-S/32": 22_878_952,
    "ViT-S/16": 22_050_664,
    "ViT-M/16": 38_837_736,
    "ViT-B/32": 88_224_232,
    "ViT-B/16": 86_567_656,
    "ViT-B/8": 86_576_872,
    "ViT-L/32": 306_535_400,
    "ViT-L/16": 304_326_632,
    "ViT-H/14": 632_045_800,
    "ViT-g/14": 1_012_611_432,
    "ViT-G/14": 1_844_440_680,
    "ViT-e/14": 3_807_214_312,
    "ViT-So400m/14": 427_680_704,
    "R50+ViT-B/16": 98_659_112,
    "R50+ViT-L/32": 328_994_856,
    "R26+ViT-S/32": 36_431_912,
    "R+ViT-Ti/16": 6_337_704,
    "BiT-R50x1": 25_549_352,
    "BiT-R50x3": 217_319_080,
    "BiT-R101x1": 44_541_480,
    "BiT-R101x3": 387_934_888,
    "BiT-R152x2": 236_335_208,
    "BiT-R152x4": 936_533_224,
}
# Printed GMACs of one forward pass, (image size, number).
GMACS = {
    "ViT-Ti/16": [(224, 1.25), (384, 4.68)],
    "ViT-S/32": [(224, 1.14)],
    "ViT-S/16": [(224, 4.60)],
    "ViT-B/32": [(224, 4.41)],
    "ViT-B/16": [(224, 17.56)],
    "ViT-B/8": [(224, 78.15)],
    "ViT-L/16": [(224, 61.55), (384, 191.07)],
    "ViT-H/14": [(224, 167.3)],
    "ViT-g/14": [(224, 267.0)],
    "ViT-G/14": [(224, 483.8)],
    "R50+ViT-B/16": [(384, 67.2)],
    "R26+ViT-S/32": [(224, 3.46)],
    "R50+ViT-L/32": [(224, 19.4)],
    "BiT-R50x1": [(224, 4.09)],
    "BiT-R50x3": [(224, 36.1)],
    "BiT-R101x1": [(224, 7.80)],
    "BiT-R101x3": [(224, 69.5)],
    "BiT-R152x2": [(224, 45.8)],
    "BiT-R152x4": [(224, 182.8)],
}
# No count of these is printed; their compute is (tests/test_paper.py).
UNCOUNTED = {"R50+ViT-B/32", "R50+ViT-L/16", "BiT-R50x2", "BiT-R152x1", "BiT-R200x3"}
# Counted in tests/models/test_{efficientnet,gpt,bert}_counts.py and test_transformer.py.
ELSEWHERE = ("EfficientNet-", "GPT-", "BERT-", "MiniLM-", "Transformer-")


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_cost_equal_the_published_ones(name):
    summary = table.summary(name)
    assert summary["parameters"] == PARAMETERS[name]
    for size, gmacs in GMACS.get(name, []):
        cost = (summary if size == 224 else table.summary(name, size))["gmacs"]
        assert cost == pytest.approx(gmacs, rel=0.005)


def test_every_published_model_is_counted():
    assert {n for n in table.published() if not n.startswith(ELSEWHERE)} == set(PARAMETERS) | UNCOUNTED


def test_the_largest_bit_without_its_head_is_the_papers_928_million():
    assert table.summary("BiT-R152x4", num_classes=0)["parameters"] == 928_340_224


def test_summary_of_another_size_and_head():
    summary = table.summary("ViT-B/16", image_size=(224, 384), num_classes=10)
    assert summary["tokens"] == 14 * 24 + 1
    # 990 classes less, and 140 positions more than 14x14.
    assert summary["parameters"] == 86_567_656 - 990 * 769 + 140 * 768


def test_sizes_take_any_patch_and_both_spellings():
    assert vit_sizes.fields("L/16") == vit_sizes.fields("ViT-L/16")
    assert vit_sizes.fields("B/7")["patch_size"] == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [("So400/14", "So400m"), ("L16", "SIZE/PATCH"), ("L/0", "SIZE/PATCH"), ("X/16", "Valid: B, G")],
)
def test_wrong_sizes_say_what_was_meant(name, message):
    with pytest.raises(UserError, match=message):
        vit_sizes.fields(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [("R151x1", 'Did you mean "R152"'), ("R50", "DEPTHxFACTOR"), ("R50x0", "DEPTHxFACTOR")],
)
def test_wrong_bit_sizes_say_what_was_meant(name, message):
    with pytest.raises(UserError, match=message):
        bit_sizes.fields(name)


def test_wrong_model_name_suggests():
    with pytest.raises(UserError, match='Did you mean "ViT-L/16"'):
        table.summary("ViT-L/61")


def test_sizes_import_neither_jax_nor_flax():
    code = (
        "import sys, vitax.models.bit_sizes, vitax.models.vit_sizes; "
        "print('jax' in sys.modules or 'flax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
