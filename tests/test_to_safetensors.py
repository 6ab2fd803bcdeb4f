"""scripts/to_safetensors.py: names and arrays of other programs' files, and what it refuses."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from scripts import to_safetensors
from scripts.to_safetensors import Node

ROOT = Path(__file__).parent.parent


def test_a_linear_layer_gets_its_name_and_its_order_back():
    kernel = np.arange(6.0).reshape(2, 3)
    arrays = {"a.fc.bias": np.zeros(3), "onnx::MatMul_1": kernel, "onnx::MatMul_2": kernel, "a.gamma": np.ones(3)}
    nodes = [
        Node("MatMul", ["x", "onnx::MatMul_1"], ["y"]),
        Node("Add", ["a.fc.bias", "y"], ["z"]),  # in either order
        Node("MatMul", ["z", "onnx::MatMul_2"], ["without a bias"]),
        Node("MatMul", ["z", "w"], ["of two products"]),
        Node("Add", ["of two products", "a.fc.bias"], ["out"]),
    ]
    found = to_safetensors.named(arrays, nodes)
    assert found.keys() == {"a.fc.bias", "a.fc.weight", "onnx::MatMul_2", "a.gamma"}
    np.testing.assert_array_equal(found["a.fc.weight"], kernel.T)
    np.testing.assert_array_equal(found["onnx::MatMul_2"], kernel)


def test_parts_are_put_together_in_their_order():
    arrays = {"b": np.ones((1, 2, 3)), "a": np.zeros((1, 1, 3)), "c": np.ones(2)}
    found = to_safetensors.joined(arrays, {"positions": ["a", "b"]})
    assert found.keys() == {"positions", "c"}
    np.testing.assert_array_equal(found["positions"][0, :, 0], [0, 1, 1])
    with pytest.raises(SystemExit, match="--join positions: no d in the file"):
        to_safetensors.joined(arrays, {"positions": ["a", "d"]})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{0}/none.pth", "x.safetensors"], "none.pth: no such file"),
        (["{0}/a.pth", "x.npz"], "ends in .safetensors"),
        (["{0}/a.npz", "x.safetensors"], r"expected \*.onnx or one of \*.pth \*.pt"),
        (["{0}/a.pth", "x.safetensors"], "needs the package torch.*pip install -r scripts/requirements-to-safe"),
        (["{0}/a.onnx", "x.safetensors"], "needs the package onnx"),
        (["{0}/a.pth", "x.safetensors", "--join", "a=b"], "expected NAME=FIRST,SECOND"),
    ],
)
def test_what_is_wrong_is_said(words, message, tmp_path, monkeypatch):
    for package in ("torch", "onnx"):
        monkeypatch.setitem(sys.modules, package, None)
    for name in ("a.pth", "a.npz", "a.onnx"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(SystemExit, match=message):
        to_safetensors.main([word.format(tmp_path) for word in words])


def test_what_is_missing_is_in_the_requirements():
    listed = (ROOT / to_safetensors.REQUIREMENTS).read_text()
    assert all(f"\n{package}" in listed for package in ("torch", "onnx", "safetensors", "numpy"))


def test_packages_are_pinned_by_version_and_content(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    packages = importlib.import_module("real_weights").PACKAGES
    assert packages.keys() == {"vit_s_focus", "efficientnet_lite0", "minilm_l6"}
    for package in packages.values():
        assert "==" in package.requirement
        assert {len(package.sha256), len(package.weights_sha256)} == {64}


class Harmful:
    """Pickled, it would run a command when it is read."""

    def __reduce__(self):
        return (Path.touch, (Path("harmed"),))


@pytest.mark.torch
def test_state_dicts_and_nothing_else(tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip("torch", reason="needs scripts/requirements-to-safetensors.txt")
    numpy_files = pytest.importorskip("safetensors.numpy")
    monkeypatch.chdir(tmp_path)
    shared = torch.arange(6.0).reshape(2, 3)
    state = {"a.weight": shared.T, "b.weight": shared, "half": shared.bfloat16(), "count": torch.tensor(3)}
    torch.save(state, "flat.pth")
    torch.save({"epoch": 3, "model": {"ema": state}}, "deep.pt")
    for source, more in (("flat.pth", []), ("deep.pt", ["--key", "model.ema"])):
        to_safetensors.main([source, "out.safetensors", *more])
        found = numpy_files.load_file("out.safetensors")
        assert found.keys() == state.keys()
        for name, value in state.items():
            np.testing.assert_array_equal(found[name], value.float().numpy())
    torch.save({"a": Harmful()}, "harmful.pth")
    for source, more, message in (
        ("deep.pt", [], "found epoch, model. Say which with --key"),
        ("deep.pt", ["--key", "model.x"], "no model.x in it. There is: ema"),
        ("harmful.pth", [], "refuses it, and it is not read in any other way"),
    ):
        with pytest.raises(SystemExit, match=message):
            to_safetensors.main([source, "out.safetensors", *more])
    assert not Path("harmed").exists()


@pytest.mark.torch
def test_an_onnx_file(tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs scripts/requirements-to-safetensors.txt")
    helper, numpy_helper = onnx.helper, importlib.import_module("onnx.numpy_helper")
    kernel, bias = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "onnx::MatMul_7"], ["y"]), helper.make_node("Add", ["fc.bias", "y"], ["z"])],
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(kernel, "onnx::MatMul_7"), numpy_helper.from_array(bias, "fc.bias")],
    )
    onnx.save(helper.make_model(graph), str(tmp_path / "a.onnx"))
    found = to_safetensors.read_onnx(tmp_path / "a.onnx")
    np.testing.assert_array_equal(found["fc.weight"], kernel.T)
    assert found.keys() == {"fc.weight", "fc.bias"}
