"""Published weight files: parity of the outputs, and the constants that come with a layout.

The files come from scripts/make_published_golden.py, where torch computes in float64.
"""

import pytest

from tests.published import FILES, TOLERANCE, apply, error, outputs
from vitax import published


def test_every_family_is_there():
    assert {name.partition("_")[0] for name in FILES} == {"timm", "hf", "google"}
    assert len(FILES) == 14


@pytest.mark.parametrize("name", FILES)
def test_outputs_equal_those_of_the_library(name):
    want = outputs(name)
    found = published.load(str(FILES[name])).whole()
    have = apply(found, want["image"])
    assert error(have.features, want["features"]) <= TOLERANCE
    assert ("logits" in want) == (have.logits is not None)
    if have.logits is not None:
        assert error(have.logits, want["logits"]) <= TOLERANCE
