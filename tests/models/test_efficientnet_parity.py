"""Logits, features, gradients and running statistics of timm's EfficientNet, to 1e-5 in float32.

The files come from scripts/make_efficientnet_golden.py, where torch computes in float64.
"""

import functools
import importlib.util
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vitax.core import tree
from vitax.layers.batch_norm import BatchNorm
from vitax.models.efficientnet import EfficientNet

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests" / "golden").glob("efficientnet_timm_*.npz"))
TOLERANCE = 1e-5  # of the largest value; never relaxed
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def load(name):
    with np.load(ROOT / "tests" / "golden" / f"efficientnet_timm_{name}.npz") as file:
        return {key: file[key] for key in file.files}


def section(golden, prefix):
    return {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}


def names_of(flat):
    """Our module -> timm's, for the modules that there are."""
    names = {"stem/conv": "conv_stem", "stem/norm": "bn1", "top/conv": "conv_head", "top/norm": "bn2"}
    names["head"] = "classifier"
    for there in {".".join(name.split(".")[:3]) for name in flat if name.startswith("blocks.")}:
        _, stage, block = there.split(".")
        here = f"stage_{int(stage) + 1}/block_{int(block) + 1:02d}"
        expands = f"{there}.conv_pwl.weight" in flat
        parts = ("expand", "depthwise", "project") if expands else ("depthwise", "project")
        convs = ("conv_pw", "conv_dw", "conv_pwl") if expands else ("conv_dw", "conv_pw")
        for number, (part, conv) in enumerate(zip(parts, convs), start=1):
            names |= {f"{here}/{part}": f"{there}.{conv}", f"{here}/{part}_norm": f"{there}.bn{number}"}
        names |= {f"{here}/squeeze": f"{there}.se.conv_reduce", f"{here}/excite": f"{there}.se.conv_expand"}
    return names


def put(node, name, value):
    *folders, leaf = name.split("/")
    for folder in folders:
        node = node.setdefault(folder, {})
    node[leaf] = jnp.asarray(value)


def parameters(flat):
    """timm's names and layouts -> a tree of our parameters; gradients go the same way as weights."""
    params = {}
    for here, there in names_of(flat).items():
        weight = flat.get(f"{there}.weight")
        if weight is None:
            continue
        if weight.ndim == 1:
            put(params, f"{here}/scale", weight)
        elif here.endswith(("squeeze", "excite", "head")):
            put(params, f"{here}/kernel", weight.reshape(weight.shape[:2]).T)
        else:
            put(params, f"{here}/kernel", weight.transpose(2, 3, 1, 0))
        if f"{there}.bias" in flat:
            put(params, f"{here}/bias", flat[f"{there}.bias"])
    return params


def statistics(flat, names):
    found = {}
    for here, there in names.items():
        if f"{there}.running_mean" in flat:
            put(found, f"{here}/mean", flat[f"{there}.running_mean"])
            put(found, f"{here}/var", flat[f"{there}.running_var"])
    return found


def build(config, **fields):
    stages = tuple(map(tuple, config["fields"].pop("stages")))
    options = {**config["fields"], **{k: config[k] for k in ("padding", "norm_eps", "norm_momentum")}, **fields}
    return EfficientNet(stages=stages, stem_channels=8, top_channels=24, num_classes=5, **options)


def start(golden, **fields):
    flat = section(golden, "weight/")
    model = build(json.loads(str(golden["config"])), **fields)
    variables = {"params": parameters(flat), "batch_stats": statistics(flat, names_of(flat))}
    expected = jax.eval_shape(model.init, jax.random.key(0), golden["image"])
    assert tree.difference(nn.meta.unbox(expected), variables) == []
    return model, variables


def error(have, want):
    return float(np.abs(np.asarray(have) - want).max() / np.abs(want).max())


def compare(golden, **fields):
    """Largest relative errors of logits, features and gradients, in evaluation mode."""
    model, variables = start(golden, **fields)

    def loss(params):
        output = model.apply({**variables, "params": params}, golden["image"])
        return (jnp.cos(output.logits) * golden["direction"]).sum(), output

    (_, output), grads = quick(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    want = dict(tree.named_leaves(parameters(section(golden, "gradient/"))))
    errors = {name: error(have, np.asarray(want[name])) for name, have in tree.named_leaves(grads)}
    return errors | {name: error(getattr(output, name), golden[name]) for name in ("logits", "features")}


def test_all_kinds_are_there():
    kinds = [path.stem.removeprefix("efficientnet_timm_") for path in FILES]
    assert kinds == ["lite", "same", "symmetric"]
    assert all(path.stat().st_size < 150_000 for path in FILES)


@pytest.mark.parametrize("name", ["lite", "same", "symmetric"])
def test_equals_timm(name):
    errors = compare(load(name), unroll=name != "same")
    assert {name: e for name, e in errors.items() if not e <= TOLERANCE} == {}


@pytest.mark.parametrize("name", ["lite", "same", "symmetric"])
def test_a_step_of_training_leaves_the_statistics_of_timm(name):
    golden = load(name)
    model, variables = start(golden)
    output, changed = quick(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))(
        variables, golden["image"]
    )
    assert error(output.logits, golden["trained_logits"]) <= TOLERANCE
    flat, names = section(golden, "trained/"), names_of(section(golden, "weight/"))
    momentum = model.norm_momentum
    for there, count in section(golden, "count/").items():
        # PyTorch keeps the unbiased variance, n / (n - 1) times TensorFlow's.
        old, new = golden[f"weight/{there}.running_var"], flat[f"{there}.running_var"]
        flat[f"{there}.running_var"] = momentum * old + (new - momentum * old) * (count - 1) / count
    want = dict(tree.named_leaves(statistics(flat, names)))
    have = dict(tree.named_leaves(changed["batch_stats"]))
    assert have.keys() == want.keys()
    assert {n: e for n in have if not (e := error(have[n], np.asarray(want[n]))) <= TOLERANCE} == {}


def test_the_wrong_padding_is_seen():
    assert compare(load("same"), padding="symmetric")["logits"] > TOLERANCE


def test_epsilons_and_momentum():
    # Those of tf_efficientnet_*; a wrong epsilon is also seen in the logits.
    assert (EfficientNet.norm_eps, EfficientNet.norm_momentum) == (1e-3, 0.99)
    assert (BatchNorm.epsilon, BatchNorm.momentum) == (1e-3, 0.99)
    configs = {name: json.loads(str(load(name)["config"])) for name in ("lite", "same", "symmetric")}
    assert {n: (c["norm_eps"], c["norm_momentum"]) for n, c in configs.items()} == {
        "lite": (1e-3, 0.99),
        "same": (1e-3, 0.99),
        "symmetric": (1e-5, 0.9),
    }
    assert compare(load("same"), norm_eps=1e-5)["logits"] > TOLERANCE


@pytest.mark.torch
def test_golden_files_are_what_timm_gives(monkeypatch):
    pytest.importorskip("torch", reason="needs scripts/requirements-parity.txt")
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    path = ROOT / "scripts" / "make_efficientnet_golden.py"
    spec = importlib.util.spec_from_file_location("make_efficientnet_golden", path)
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, script)
    try:
        spec.loader.exec_module(script)
    except ImportError as missing:
        pytest.skip(f"needs scripts/requirements-parity.txt: {missing}")
    for name in script.CONFIGS:
        golden, fresh = load(name), script.make(name)
        assert golden.keys() == fresh.keys()
        for key in golden.keys() - {"config"}:
            np.testing.assert_allclose(golden[key], fresh[key], rtol=1e-6, atol=1e-9, err_msg=key)
