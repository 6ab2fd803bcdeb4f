"""Every message in docs/troubleshooting.md is provoked, or at least found in the code."""

import ast
import re
import shutil

import pytest

from tests import documents, images
from tests.documents import ROOT
from vitax.__main__ import main

PAGE = ROOT / "docs" / "troubleshooting.md"
HEADINGS = re.findall(r"^### `(.+)`$", PAGE.read_text(), re.MULTILINE)


def pattern(heading):
    return re.escape(heading).replace(r"\.\.\.", ".*")


def templates():
    """Every text in vitax, with a mark where a value is filled in."""
    for path in sorted((ROOT / "vitax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(p.value if isinstance(p, ast.Constant) else "\0" for p in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%[sd]|%\.\dg", "\0", node.value)


TRAIN = ["train", "--config", "quickstart:scratch", "--workdir", "runs/new", "--config.data.batch_size=16"]
FINETUNE = ["finetune", "--checkpoint", "x", "--workdir", "runs/new", "--data"]
FOLDER = "--config.data.source={'kind': 'folder', 'path': 'images'}"
OPS = "--config.data.ops=({'kind': 'decode'}, {'kind': 'resize'})"
# Heading -> a command that prints it. The others need a run, several hosts or another machine.
PROVOKED = {
    'unknown verb "..."': ["trian"],
    "no such recipe": ["train", "--config", "quikstart", "--workdir", "runs/new"],
    "unknown part of a recipe": [*TRAIN, "--config.optimiser.lr=1"],
    "unknown field.": [*TRAIN, "--config.optimizer.learning_rate=1"],
    'unknown name "..."': [*TRAIN, "--config.optimizer.kind=adamv"],
    "missing. Give it in the recipe or as --config.": [*TRAIN, "--config.data.source={'kind': 'folder'}"],
    "is not one of": [*TRAIN, "--config.model.pool=mean"],
    "Unknown argument ...": [*TRAIN, "--lr=3e-4"],
    "set exactly one of": [*TRAIN, "--config.duration={'steps': 1, 'epochs': 1}"],
    "A duration in ... needs the length of the run": [*TRAIN, "--config.duration.fraction=0.5"],
    "no folder or CSV": [*FINETUNE, "nowhere"],
    "one class only": [*FINETUNE, "one"],
    "folder: no folder": [*TRAIN, "--config.data.source={'kind': 'folder', 'path': 'nowhere'}"],
    "num_examples: the recipe states ..., the source holds ...": [*TRAIN, FOLDER, OPS, "--config.data.num_examples=5"],
    "num_classes: the recipe states ..., the source has ... classes": [
        *(*TRAIN, FOLDER, OPS, "--config.data.num_examples=6", "--config.data.num_classes=5")
    ],
    "no checkpoint in": ["eval", "--checkpoint", "nowhere"],
    "no recipe.json there; is it the folder of a run?": ["report", "--workdir", "nowhere"],
    "no ledger.json there; is it the folder of a run?": ["cost", "--workdir", "nowhere"],
    "only ckpt cp reads URLs": ["ckpt", "ls", "gs://bucket/run"],
    "is not supported; expected a local folder or": ["train", "--config", "quickstart", "--workdir", "s3://b/x"],
    "does not use the ... devices that are there exactly": [*TRAIN, "--config.mesh.data=3"],
    "examples do not divide over": [*TRAIN, "--config.data.batch_size=9"],
    "microbatches do not divide a batch of": [*TRAIN, "--config.accumulate=7"],
    "px do not divide into patches of": [*TRAIN, "--config.model.patch_size=5"],
    "is a kernel for TPUs, and the devices are of platform": [*TRAIN, "--config.model.attention_kernel=pallas"],
}


def test_the_other_messages_are_in_the_code():
    texts = "\n".join(templates())
    assert not [h for h in HEADINGS if h not in PROVOKED and not re.search(pattern(h), texts)]


def test_only_messages_of_the_page_are_provoked():
    assert set(PROVOKED) <= set(HEADINGS)
    assert len(set(HEADINGS)) == len(HEADINGS)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images.shapes(tmp_path / "images", 2)
    (tmp_path / "one" / "cat").mkdir(parents=True)
    shutil.copy(tmp_path / "images" / "bars" / "000.png", tmp_path / "one" / "cat" / "1.png")
    return tmp_path


@pytest.mark.parametrize("heading", PROVOKED)
def test_it_is_printed(heading, here, capsys):
    assert main(PROVOKED[heading]) == 2
    assert re.search(pattern(heading), capsys.readouterr().err)


def test_headings_are_all_messages():
    assert all(re.fullmatch(r"### `.+`", line) for line in PAGE.read_text().splitlines() if line.startswith("### "))
    assert PAGE in documents.WRITTEN
