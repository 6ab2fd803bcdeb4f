"""Every test process has 8 fake CPU devices; tests that want one build a mesh of one."""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
# Compiled programs are shared between test processes and runs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "vitax" / "tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import pytest


@pytest.fixture
def vitax_data() -> Path:
    """The folder of data that is not embedded; skips where VITAX_DATA is unset."""
    folder = os.environ.get("VITAX_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("VITAX_DATA is unset: a folder with data that is not embedded")
    return Path(folder)
