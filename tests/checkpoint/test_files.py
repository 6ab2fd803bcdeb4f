"""Weight files are mapped, not copied, and never unpickled."""

import json
import pickle
import struct

import ml_dtypes
import numpy as np
import pytest

from vitax.checkpoint import files
from vitax.core.errors import UserError


def mapped(array):
    base = array
    while base is not None and not isinstance(base, np.memmap):
        base = base.base
    return base is not None


def test_npz_is_mapped_where_it_is_stored(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "params/a/kernel": rng.standard_normal((3, 5)).astype(np.float32),
        "params/b": np.asfortranarray(rng.standard_normal((4, 2))),
        "params/empty": np.zeros((0, 3), np.float32),
        "params/scalar": np.float32(2.5),
        "other": np.ones(2),
    }
    for name, save, how in (("stored", np.savez, True), ("packed", np.savez_compressed, False)):
        path = tmp_path / f"{name}.npz"
        save(path, **arrays)
        found = files.read(str(path))
        assert found.root == "params/"
        assert found.elsewhere == ("other",)
        assert sorted(found.arrays) == ["a/kernel", "b", "empty", "scalar"]
        for key, x in found.arrays.items():
            np.testing.assert_array_equal(x, arrays[f"params/{key}"])
        assert mapped(found.arrays["a/kernel"]) == how
        assert mapped(found.arrays["b"]) == how


@pytest.mark.parametrize(
    ("names", "spec", "root"),
    [
        (("embedding/kernel",), "", ""),
        (("params/embedding/kernel",), "", "params/"),
        (("opt/target/embedding/kernel", "opt/state/step"), "", "opt/target/"),
        (("params/img/embedding/kernel", "params/txt/x"), "", "params/img/"),
        (("params/img/embedding/kernel", "params/txt/x"), ":txt", "params/txt/"),
        (("img/embedding/kernel", "t"), ":img", "img/"),
        (("backbone.cls_token", "decoder.weight"), ":backbone", "backbone."),
        (("model.backbone.cls_token", "model.head.weight"), ":model.backbone", "model.backbone."),
    ],
)
def test_roots_and_parts(tmp_path, names, spec, root):
    path = tmp_path / "w.npz"
    np.savez(path, **dict.fromkeys(names, np.zeros(1)))
    assert files.read(f"{path}{spec}").root == root


def test_an_unknown_part_names_those_that_are_there(tmp_path):
    np.savez(tmp_path / "w.npz", **{"params/img/a": np.zeros(1), "params/txt/b": np.zeros(1)})
    with pytest.raises(UserError, match="no such part in the file. There are: img, txt"):
        files.read(f"{tmp_path}/w.npz:image")


def test_an_unknown_part_of_torch_names(tmp_path):
    np.savez(tmp_path / "w.npz", **{"backbone.a": np.zeros(1), "decoder.b": np.zeros(1)})
    with pytest.raises(UserError, match="no such part in the file. There are: backbone, decoder"):
        files.read(f"{tmp_path}/w.npz:head")


def test_pickled_content_is_refused_unread(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path = tmp_path / "w.npz"
    np.savez(path, a=np.zeros(2), b=np.array([Trap()], dtype=object))
    with pytest.raises(UserError, match="b holds pickled Python objects, which are never loaded"):
        files.read(str(path))
    (tmp_path / "w.pt").write_bytes(pickle.dumps(1))
    with pytest.raises(UserError, match=r"\.pt files are pickled code.*to_safetensors.py .*w.pt w.safetensors makes"):
        files.read(str(tmp_path / "w.pt"))
    (tmp_path / "w.onnx").write_bytes(b"")
    with pytest.raises(UserError, match=r'unknown format "\.onnx".*to_safetensors.py .*w.onnx w.safetensors makes one'):
        files.read(str(tmp_path / "w.onnx"))


def test_safetensors_needs_no_package_and_is_mapped(tmp_path):
    save = pytest.importorskip("safetensors.numpy", reason="the extra `interop` is not installed").save_file
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.standard_normal((3, 5)).astype(np.float32),
        "b": rng.standard_normal(7).astype(ml_dtypes.bfloat16),
        "c": rng.standard_normal((2, 2)).astype(np.float16),
    }
    save(arrays, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text('{"image_size": 8}')
    found = files.read(str(tmp_path))  # a folder with a model in it
    assert found.metadata == {"format": "pt"}
    assert found.config == {"image_size": 8}
    for name, x in arrays.items():
        assert found.arrays[name].dtype == x.dtype
        np.testing.assert_array_equal(found.arrays[name], x)
        assert not found.arrays[name].flags.owndata


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 400]},
        {"dtype": "F32", "shape": [100], "data_offsets": [0, 16]},
        {"dtype": "F8_E5M2", "shape": [4], "data_offsets": [0, 4]},
    ],
)
def test_a_safetensors_header_that_lies_is_refused(tmp_path, entry):
    header = json.dumps({"x": entry}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(UserError, match="broken or no .safetensors file: x (lies outside|has dtype)"):
        files.read(str(path))
    path.write_bytes(struct.pack("<Q", 2**60) + header)
    with pytest.raises(UserError, match="a header of"):
        files.read(str(path))


def test_bad_names_are_errors(tmp_path):
    np.savez(tmp_path / "there.npz", a=np.zeros(1))
    with pytest.raises(UserError, match="no such file. Beside it: there.npz"):
        files.read(str(tmp_path / "their.npz"))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "there.npz").read_bytes()[:-30])
    with pytest.raises(UserError, match="cut.npz: broken or no .npz file"):
        files.read(str(tmp_path / "cut.npz"))
    with pytest.raises(UserError, match="read from disk alone"):
        files.read("gs://bucket/w.npz")


def test_workdirs_are_no_weight_files(tmp_path):
    assert files.is_weight_file("ViT-B_16.npz")
    assert files.is_weight_file("siglip.npz:img")
    assert files.is_weight_file("model.bin")
    assert not files.is_weight_file(str(tmp_path))
    assert not files.is_weight_file("runs/pretrain@100")
    assert not files.is_weight_file("gs://bucket/run")
