"""Logits, features and gradients of timm's BiT and ViT hybrids, to 1e-5 in float32.

The files come from scripts/make_residual_golden.py, where torch computes in float64.
"""

import importlib.util
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.timm_weights import TOLERANCE, error, gradient_errors, load, residual_from_timm, section, vit_from_timm
from vitax.core import tree
from vitax.models.bit import BiT
from vitax.models.hybrid import Hybrid

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
FILES = {kind: sorted(GOLDEN.glob(f"{kind}_timm_*.npz")) for kind in ("bit", "hybrid")}
SMALL = {"root_width": 8, "num_groups": 4, "num_classes": 5}


def config_of(golden):
    config = json.loads(str(golden["config"]))
    return config | {"blocks": tuple(config["blocks"])}


def bit(golden, **fields):
    config = config_of(golden)
    own = {name: config[name] for name in ("blocks", "norm_eps", "std_eps")}
    return BiT(**SMALL | own | fields)


def bit_from_timm(flat):
    params = residual_from_timm(flat, "stem.conv")
    return params | {
        "norm": {"scale": jnp.asarray(flat["norm.weight"]), "bias": jnp.asarray(flat["norm.bias"])},
        "head": {
            "kernel": jnp.asarray(flat["head.fc.weight"][:, :, 0, 0].T),
            "bias": jnp.asarray(flat["head.fc.bias"]),
        },
    }


def hybrid(golden, **fields):
    config = config_of(golden)
    encoder = config["encoder"]
    own = {
        "width": encoder["embed_dim"],
        "depth": encoder["depth"],
        "num_heads": encoder["num_heads"],
        "mlp_dim": int(encoder["embed_dim"] * encoder["mlp_ratio"]),
        "patch_size": config["patch"],
        "gelu": "erf",
        "num_classes": encoder["num_classes"],
        "image_size": golden["image"].shape[1:3],
        "stem_blocks": config["blocks"],
        "stem_width": 8,
        "stem_groups": 4,
        "stem_norm_eps": config["norm_eps"],
        "stem_std_eps": config["std_eps"],
    }
    return Hybrid(**own | {"stem_std_eps_added_to": "variance"} | fields)


def hybrid_from_timm(flat):
    stem = section(flat, "patch_embed.backbone.")
    root = "conv" if "conv.weight" in stem else "stem.conv"
    return vit_from_timm(flat, 2) | {"stem": residual_from_timm(stem, root)}


BUILD = {"bit": (bit, bit_from_timm), "hybrid": (hybrid, hybrid_from_timm)}


def compare(path, **fields):
    """Largest relative errors of logits, features and gradients."""
    golden = load(path)
    make, convert = BUILD[path.stem.partition("_")[0]]
    model, params = make(golden, **fields), convert(section(golden, "weight/"))
    expected = nn.meta.unbox(jax.eval_shape(model.init, jax.random.key(0), golden["image"])["params"])
    assert tree.difference(expected, params) == []

    def loss(params):
        output = model.apply({"params": params}, golden["image"])
        return (jnp.cos(output.logits) * golden["direction"]).sum(), output

    step = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options={"xla_backend_optimization_level": 0})
    (_, output), grads = step(params)
    want = dict(tree.named_leaves(convert(section(golden, "gradient/"))))
    errors = {"logits": error(output.logits, golden["logits"]), "features": error(output.features, golden["features"])}
    return errors | gradient_errors(tree.named_leaves(grads), want)


def test_all_kinds_are_there():
    assert [path.stem for files in FILES.values() for path in files] == [
        *("bit_timm_epsilons", "bit_timm_two_stages"),
        *("hybrid_timm_root", "hybrid_timm_two_stages"),
    ]


@pytest.mark.parametrize("path", [*FILES["bit"], *FILES["hybrid"]], ids=lambda path: path.stem)
def test_equals_timm(path):
    errors = compare(path)
    assert {name: e for name, e in errors.items() if not e <= TOLERANCE} == {}


@pytest.mark.parametrize("fields", [{"norm_eps": 1e-5}, {"std_eps": 1e-8}])
def test_each_epsilon_reaches_every_place(fields):
    assert compare(GOLDEN / "bit_timm_epsilons.npz", **fields)["logits"] > TOLERANCE


def test_the_stem_has_its_own_epsilons():
    # Large ones: a group norm behind each convolution takes most of a common scale away.
    path, off = GOLDEN / "hybrid_timm_root.npz", {"stem_std_eps": 1e-2}
    errors = [compare(path, **off, stem_std_eps_added_to=to)["logits"] for to in ("variance", "deviation")]
    assert min(errors) > TOLERANCE
    assert abs(errors[0] - errors[1]) > TOLERANCE


def test_epsilons():
    # Between 1e-8 and 1e-10 nothing is seen at 1e-5, so they are asserted.
    assert (BiT.norm_eps, BiT.std_eps) == (1e-5, 1e-10)
    assert (Hybrid.norm_eps, Hybrid.stem_norm_eps, Hybrid.stem_std_eps) == (1e-6, 1e-6, 1e-5)
    assert (Hybrid.stem_std_eps_added_to, Hybrid.gelu) == ("deviation", "tanh")


@pytest.mark.torch
def test_golden_files_are_what_timm_gives(monkeypatch):
    pytest.importorskip("torch", reason="needs scripts/requirements-parity.txt")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location("make_residual_golden", ROOT / "scripts" / "make_residual_golden.py")
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, script)
    try:
        spec.loader.exec_module(script)
    except ImportError as missing:
        pytest.skip(f"needs scripts/requirements-parity.txt: {missing}")
    for kind, names, make in (("bit", script.BIT, script.make_bit), ("hybrid", script.HYBRID, script.make_hybrid)):
        assert {f"{kind}_timm_{name}" for name in names} == {path.stem for path in FILES[kind]}
        for path in FILES[kind]:
            golden, fresh = load(path), make(path.stem.removeprefix(f"{kind}_timm_"))
            assert golden.keys() == fresh.keys()
            for name in golden.keys() - {"config"}:
                np.testing.assert_allclose(golden[name], fresh[name], rtol=1e-6, atol=1e-9, err_msg=name)
