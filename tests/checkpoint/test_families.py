"""BiT, EfficientNet and hybrids: parity through the loading path, both ways, and what goes wrong elsewhere.

The files come from scripts/make_families_golden.py, where torch computes in float64.
"""

import numpy as np
import pytest

from tests.families import NAMES, TOLERANCE, apply, error, image, outputs, write
from vitax import published, publishing
from vitax.checkpoint import files

# timm reads Google's files into models that compute as torch ports do.
AS_TORCH = {
    "bit_google": {"std_eps": 1e-8},
    "hybrid_google": {
        "gelu": "erf",
        "stem_norm_eps": 1e-5,
        "stem_std_eps": 1e-8,
        "stem_std_eps_added_to": "variance",
    },
}
OWN = {"bit_google": "npz", "hybrid_google": "npz", "bit_hf": "hf", "efficientnet_hf": "hf"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return {name: write(name, folder / name) for name in NAMES}


def said(found, text):
    return any(text in line for line in found.lines)


def test_every_library_is_there():
    assert {name for name in NAMES if name.startswith("bit")} == {"bit_google", "bit_hf", "bit_timm"}
    assert len([name for name in NAMES if name.startswith("efficientnet")]) == 4
    assert len([name for name in NAMES if name.startswith("hybrid")]) == 3


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_those_of_the_library(name, written):
    want = outputs(name)
    size = tuple(int(n) for n in want["size"])
    found = published.load(str(written[name]), size).whole()
    have = apply(found, image(name), **AS_TORCH.get(name, {}))
    assert error(have.features, want["features"]) <= TOLERANCE
    assert error(have.logits, want["logits"]) <= TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_written_back_it_is_the_same_file(name, written, tmp_path):
    if name.endswith("google"):
        target = tmp_path / "back.npz"
    else:
        pytest.importorskip("safetensors", reason="the extra `interop` is not installed")
        target = tmp_path / "back"
    publishing.run(str(written[name]), target, OWN.get(name, "timm"))
    want, have = files.read(str(written[name])).arrays, files.read(str(target)).arrays
    assert have.keys() == want.keys()
    for key, value in want.items():
        assert have[key].dtype == value.dtype, key
        if key.endswith("num_batches_tracked"):
            assert have[key] == 0
        else:
            # Old files have axes of 1 in front of the norms; new ones do not.
            np.testing.assert_array_equal(have[key], value.reshape(have[key].shape), err_msg=key)
            assert have[key].shape == value.shape or value.shape[:3] == (1, 1, 1), key
