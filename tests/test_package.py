"""The wheel works outside the clone."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    for name in filter(None, names):  # a copy: building leaves files behind
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(command, capture_output=True, text=True, check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_is_named_vitax_train_and_holds_recipes_data_and_licences(wheel):
    assert wheel.name.startswith("vitax_train-")
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "vitax/configs/quickstart.py",
        "vitax/data/embedded/fashion_mnist.npz",
        "vitax/data/embedded/digits.npz",
        "vitax/data/embedded/NOTICE.txt",
        "vitax/py.typed",
        "vitax/launch/files/jobset.yaml",
        "vitax/launch/files/tpu_vm.sh",
        "vitax/launch/files/Dockerfile",
    ):
        assert name in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("licenses/NOTICE") for name in names)
    assert not any(name.startswith("tests/") for name in names)
    metadata = next(name for name in names if name.endswith("METADATA"))
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    assert "pip install vitax" not in text.replace("pip install vitax-train", "")


def test_recipes_run_outside_the_clone(wheel, tmp_path):
    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    # The wheel's own files first, its dependencies from this environment, the clone nowhere.
    script = (
        f"import sys; sys.path.insert(0, {str(target)!r}); "
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]; "
        "import vitax; assert vitax.__file__.startswith(sys.path[0]), vitax.__file__; "
        "from vitax.__main__ import main; sys.exit(main(['recipes']))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "quickstart:pretrain" in done.stdout


def test_embedded_data_stays_small():
    total = sum(p.stat().st_size for p in (ROOT / "vitax" / "data" / "embedded").iterdir() if p.is_file())
    assert total <= 6e6


def test_no_text_sends_anybody_to_the_other_package():
    wrong = [
        str(p.relative_to(ROOT))
        for p in ROOT.rglob("*.md")
        if ".venv" not in p.parts and "pip install vitax" in p.read_text().replace("pip install vitax-train", "")
    ]
    assert not wrong
