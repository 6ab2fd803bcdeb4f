"""Imports go one way."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent / "vitax"
BELOW = {
    "core": set(),
    "parallel": {"core"},
    "layers": {"core"},
    "optim": {"core"},
    "data": {"core"},
    "cost": {"core"},
    "generate": {"core"},
    "models": {"core", "layers", "cost"},
    "checkpoint": {"core", "parallel"},
    "objectives": {"core", "layers", "models"},
    "train": {"core", "parallel", "optim", "data", "checkpoint", "cost"},
    "evaluators": {"core", "parallel", "data", "generate", "objectives", "train"},
    "specs": {"core", "data", "construct"},
    "weights": {
        *("core", "parallel", "layers", "data", "checkpoint", "models", "train", "specs"),
        *("construct", "config_files", "carried_tokenizers"),
    },
    # A page over everything below the verbs.
    "report": {
        "core",
        "data",
        "train",
        "evaluators",
        "generate",
        "recipe",
        "bill",
        "config_files",
        "infer",
        "inspection",
        "attention_map",
    },
    # Beside plan: it asks recipe and plan before it starts anything.
    "launch": {"core", "cost", "parallel", "train", "config_files", "estimate", "plan", "recipe"},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_packages_import_only_what_is_below_them():
    wrong = []
    for package, allowed in BELOW.items():
        for path in (ROOT / package).rglob("*.py"):
            for name in imports(path):
                parts = name.split(".")
                if parts[0] != "vitax" or len(parts) == 1 or parts[1] == package:
                    continue
                if parts[1] not in allowed:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_every_package_is_in_the_table_and_says_what_it_is():
    packages = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert packages == set(BELOW)
    for package in packages:
        assert ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text()))


def test_data_does_not_import_jax():
    for path in (ROOT / "data").rglob("*.py"):
        assert not any(name.split(".")[0] in ("jax", "flax") for name in imports(path)), path


def test_files_stay_small():
    long = {str(p.relative_to(ROOT)): n for p in ROOT.rglob("*.py") if (n := len(p.read_text().splitlines())) > 450}
    assert not long
