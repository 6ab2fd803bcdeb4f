"""Logits, features and gradients of timm's ViT, to 1e-5 in float32.

The files come from scripts/make_parity_golden.py, where torch computes in float64.
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

from tests.timm_weights import TOLERANCE, error, gradient_errors, load, section, vit_from_timm
from vitax.core import tree
from vitax.models.vit import ViT

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests" / "golden").glob("vit_timm_*.npz"))


def build(config, **fields):
    timm = config["timm"]
    size, patch = timm["img_size"], timm["patch_size"]
    return ViT(
        width=timm["embed_dim"],
        depth=timm["depth"],
        mlp_dim=int(timm["embed_dim"] * timm["mlp_ratio"]),
        num_heads=timm["num_heads"],
        patch_size=patch if isinstance(patch, int) else tuple(patch),
        image_size=size if isinstance(size, int) else tuple(size),
        num_classes=timm["num_classes"],
        pool={"avg": "gap", "map": "map"}.get(timm.get("global_pool"), "tok"),
        norm_after_pool=timm.get("fc_norm", False),
        num_registers=timm.get("reg_tokens", 0),
        layer_scale=timm.get("init_values"),
        **{
            "gelu": {"gelu": "erf", "gelu_tanh": "tanh"}[config["activation"]],
            "norm_eps": config["norm_eps"],
            **fields,
        },
    )


def compare(golden, **fields):
    """Largest relative errors of logits, features and gradients."""
    config = json.loads(str(golden["config"]))
    model, num_heads = build(config, **fields), config["timm"]["num_heads"]
    params = vit_from_timm(section(golden, "weight/"), num_heads)
    expected = nn.meta.unbox(jax.eval_shape(model.init, jax.random.key(0), golden["image"])["params"])
    assert tree.difference(expected, params) == []

    def loss(params):
        output = model.apply({"params": params}, golden["image"])
        return (jnp.cos(output.logits) * golden["direction"]).sum(), output

    (_, output), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    want = dict(tree.named_leaves(vit_from_timm(section(golden, "gradient/"), num_heads)))
    errors = {"logits": error(output.logits, golden["logits"]), "features": error(output.features, golden["features"])}
    return errors | gradient_errors(tree.named_leaves(grads), want)


def test_all_kinds_are_there():
    assert [path.stem.removeprefix("vit_timm_") for path in FILES] == [
        "gap_registers",
        "gap_tokens",
        "map",
        "tok_erf",
        "tok_tanh_scale",
    ]


@pytest.mark.parametrize("unroll", [True, False])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_equals_timm(path, unroll):
    errors = compare(load(path), unroll=unroll)
    assert {name: e for name, e in errors.items() if not e <= TOLERANCE} == {}


def test_the_wrong_activation_is_seen():
    golden = load(ROOT / "tests" / "golden" / "vit_timm_tok_erf.npz")
    assert compare(golden, gelu="tanh")["logits"] > TOLERANCE


def test_epsilons():
    # Too small to be seen at 1e-5 between 1e-6 and 1e-12, so they are asserted.
    assert ViT.norm_eps == 1e-6
    epsilons = {path.stem: json.loads(str(load(path)["config"]))["norm_eps"] for path in FILES}
    assert set(epsilons.values()) == {1e-6, 1e-5, 1e-3}
    # At 1e-3 it is seen, so the field reaches every norm.
    golden = load(ROOT / "tests" / "golden" / "vit_timm_gap_tokens.npz")
    assert compare(golden, norm_eps=1e-6)["logits"] > TOLERANCE


@pytest.mark.torch
def test_golden_files_are_what_timm_gives(monkeypatch):
    pytest.importorskip("torch", reason="needs scripts/requirements-parity.txt")
    pytest.importorskip("PIL", reason="needs scripts/requirements-parity.txt")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location("make_parity_golden", ROOT / "scripts" / "make_parity_golden.py")
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, script)
    try:
        spec.loader.exec_module(script)
    except ImportError as missing:
        pytest.skip(f"needs scripts/requirements-parity.txt: {missing}")
    assert {f"vit_timm_{name}" for name in script.CONFIGS} == {path.stem for path in FILES}
    for path in FILES:
        golden, fresh = load(path), script.make(path.stem.removeprefix("vit_timm_"))
        assert golden.keys() == fresh.keys()
        for name in golden.keys() - {"config"}:
            np.testing.assert_allclose(golden[name], fresh[name], rtol=1e-6, atol=1e-9, err_msg=name)
