"""Every notebook runs top to bottom, with a small model in place of the chosen one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "colabs"
# These two have more to compile than to run; the others train.
FEW_STEPS = ("attention.ipynb", "language.ipynb")
SMALL = " ".join(
    f"--config.{change}"
    for change in ("evaluators=None", "model.width=16", "model.mlp_dim=16", "model.depth=1", "model.num_heads=4")
)
# What takes the place of the cell tagged `parameters`.
PARAMETERS = {
    "attention.ipynb": f'''
TRANSLATE, STEPS, CHECKPOINT, WORKDIR, DEPTH = "He came.", 2, "", "attention", 1
OVERRIDES = "{SMALL}"
''',
    "language.ipynb": f'''
GPT, BERT, GPT_STEPS, BERT_STEPS, WORKDIR, MAX_TOKENS = "", "", 2, 2, "language", 4
PROMPT, TEXT, MASKED = "My lord", "Now is the winter", "in the [MASK] was the word"
OVERRIDES = "{SMALL}"
''',
    "plan.ipynb": """
CONFIG, TOPOLOGY, MFU = "vit_jft:B/16", "v3:2x2", 0.4
OVERRIDES = ("--config.model.width=64 --config.model.mlp_dim=128 --config.model.num_heads=2 "
             "--config.model.depth=2 --config.data.batch_size=256")
""",
    "finetune_your_images.ipynb": """
DATA, PHOTOS, CHECKPOINT, WORKDIR, MIRROR, USE_DRIVE = "", "", "", "mine", False, False
STEPS, EPOCHS, PRETRAIN_STEPS, STOP_HALFWAY = 60, 0, 4, True
""",
    "inside_vit.ipynb": 'STEPS, WORKDIR = 6, "inside"\n',
    "quickstart.ipynb": 'STEPS, SEEDS, WORKDIR = 6, 1, "quick"\n',
}


def source(name):
    cells = json.loads((ROOT / name).read_text())["cells"]
    parts = []
    for cell in cells:
        if cell["cell_type"] == "code":
            parameters = "parameters" in cell["metadata"].get("tags", ())
            parts.append(PARAMETERS[name] if parameters else "".join(cell["source"]))
    return "\n".join(parts)


def test_every_notebook_is_run():
    assert {p.name for p in ROOT.glob("*.ipynb")} == set(PARAMETERS)


def run(name, folder, prelude=""):
    env = {**os.environ, "MPLBACKEND": "Agg", "JAX_NUM_CPU_DEVICES": "1"}
    if name not in FEW_STEPS:
        env.pop("XLA_FLAGS", None)
    code = prelude + source(name)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env, cwd=folder
    )


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_it_runs_top_to_bottom(name, tmp_path):
    done = run(name, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_plan_goes_on_without_the_compiler(tmp_path):
    hide = "import importlib.util as u; _f = u.find_spec; u.find_spec = lambda n: None if n == 'libtpu' else _f(n)\n"
    done = run("plan.ipynb", tmp_path, hide)
    assert done.returncode == 0, done.stderr
    assert "libtpu, the TPU compiler, is not installed" in done.stdout
    assert "Best that fits:" in done.stdout


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_it_was_committed_with_its_outputs(name):
    cells = json.loads((ROOT / name).read_text())["cells"]
    assert any(c.get("outputs") for c in cells)
    for output in (o for c in cells for o in c.get("outputs", [])):
        assert output.get("name") == "stdout" or "image/png" in output["data"]  # no progress, no warnings
        assert not any(place in json.dumps(output) for place in ("/root/", "/home/", "/tmp/", "site-packages"))
    # One cell installs, and upgrades nothing that is there.
    assert not any("--upgrade" in "".join(c["source"]) for c in cells)
