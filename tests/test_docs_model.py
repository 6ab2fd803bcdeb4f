"""The model of docs/add_a_model.md works as the page says: its code is what is tested."""

import importlib
import importlib.util
import sys

import pytest

from tests import documents
from tests.documents import ROOT
from tests.models import test_contract as contract
from vitax.__main__ import main
from vitax.models import table

SOURCE, TABLE, TEST, TINY, CONFIG = documents.blocks(ROOT / "docs" / "add_a_model.md", "python")
SMALL = [
    *("--config.duration.steps=2", "--config.data.batch_size=16", "--config.model.width=16"),
    *("--config.evaluators.val.data.source.split=test[:20%]", "--config.evaluators.val.data.num_examples=200"),
]


@pytest.fixture
def model(tmp_path, monkeypatch):
    """The page's source file as ``vitax.models.patch_bag``, and in the table."""
    name = "vitax.models.patch_bag"
    (tmp_path / "patch_bag_model.py").write_text(SOURCE)
    spec = importlib.util.spec_from_file_location(name, tmp_path / "patch_bag_model.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(table.MODELS, "patch_bag", module.PatchBag)
    tiny = {}
    exec(TINY, tiny)
    monkeypatch.setitem(contract.TINY, "patch_bag", tiny["TINY"]["patch_bag"])
    return module


def test_the_line_in_the_table_is_like_the_others(model):
    made = {"PatchBag": model.PatchBag, "ViT": table.ViT}
    exec(TABLE, made)
    assert made["MODELS"].items() <= table.MODELS.items()


def test_its_own_test_passes(model):
    names = {}
    exec(TEST, names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 1
    tests[0]()


def test_its_own_test_fails_with_the_break_that_the_page_names(model):
    names = {}
    exec(TEST.replace("jnp.concatenate([images[:, 4:], images[:, :4]], axis=1)", "images[:, ::-1]"), names)
    with pytest.raises(AssertionError):
        names["test_the_order_of_patches_does_not_matter"]()


def test_it_keeps_the_contract(model):
    contract.test_output("patch_bag")
    contract.test_every_field_is_typed_and_documented("patch_bag")


def test_it_trains_evaluates_and_is_sharded_without_a_word_of_its_own(model, tmp_path, capsys, monkeypatch):
    documents.on_one_device(monkeypatch)
    path, workdir = tmp_path / "patch_bag.py", tmp_path / "run"
    path.write_text(CONFIG)
    assert main(["train", "--config", str(path), "--workdir", str(workdir), *SMALL]) == 0
    assert "state digest=" in capsys.readouterr().out
    assert main(["eval", "--checkpoint", str(workdir)]) == 0
    assert main(["recipes", "--explain", str(path), "--devices", "4", "--config.mesh.fsdp=4"]) == 0
    assert "fsdp" in capsys.readouterr().out
