"""Every test process has 8 fake CPU devices; tests that want one build a mesh of one."""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
# Compiled programs are shared between test processes and runs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "vitax" / "tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

# Tests compile more than they run: tests/train and tests/objectives take a third less time.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import pytest


@pytest.fixture(scope="module", autouse=True)
def forget():
    """Compiled programs and traces of a file go with it: all together they are gigabytes a worker."""
    yield
    import jax

    jax.clear_caches()


@pytest.fixture
def vitax_data() -> Path:
    """The folder of data that is not embedded; skips where VITAX_DATA is unset."""
    folder = os.environ.get("VITAX_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("VITAX_DATA is unset: a folder with data that is not embedded")
    return Path(folder)


@pytest.fixture
def tiny():
    """A recipe of a tiny ViT on made-up images, with everything that is random turned on."""
    return tiny_config


def tiny_config(**changes):
    """The config as nested dicts; ``changes`` are dotted paths with ``__`` for the dot."""
    from vitax import config_files

    config = {
        "model": {
            "kind": "vit",
            "patch_size": 4,
            "width": 32,
            "depth": 2,
            "mlp_dim": 64,
            "num_heads": 2,
            "dropout": 0.1,
            "stochastic_depth": 0.1,
            "zero_head": False,
        },
        "objective": {"kind": "classification", "mixup": 0.2},
        "data": {
            "source": {"kind": "synthetic"},
            "ops": ({"kind": "random_crop", "padding": 2}, {"kind": "flip"}),
            "num_examples": 100,
            "num_classes": 4,
            "image_size": 16,
            "batch_size": 16,
        },
        "evaluators": {
            "val": {
                "kind": "classification",
                "every": {"steps": 100},
                "data": {"source": {"kind": "synthetic", "offset": 100}, "num_examples": 21, "batch_size": 16},
            }
        },
        "optimizer": {"kind": "adamw", "lr": 1e-3, "weight_decay": 0.1, "clip_norm": 1.0, "ema": 0.9},
        "schedule": {"kind": "cosine", "warmup": {"steps": 2}},
        "duration": {"steps": 12},
        "checkpoint": {"every": {"steps": 5}},
        "log": {"every": {"steps": 1}},
        "seed": 1,
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        node = config
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    assert config_files.flatten(config)
    return config
