import os
import subprocess
import sys

import pytest

from vitax.parallel import heap


@pytest.mark.parametrize(
    ("platforms", "files", "expected"),
    [("cpu", ["/dev/nvidia0"], True), ("cuda,cpu", [], False), ("", [], True), ("", ["/dev/accel0"], False)],
)
def test_where_jax_will_compute(monkeypatch, platforms, files, expected):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(heap.glob, "glob", lambda pattern: [f for f in files if f[:9] == pattern[:9]])
    assert heap.computes_on_cpu() is expected


CODE = """
import resource, sys
from vitax.parallel import heap
if sys.argv[1] == "keep":
    assert heap.keep_freed_memory()
import jax, jax.numpy as jnp
step = jax.jit(lambda x: jnp.tanh(jnp.cumsum(jnp.sin(x) @ x.T, 0)).sum())
x = jnp.ones((4096, 64))
step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step(x).block_until_ready()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5)
"""


def test_steps_stop_faulting_memory_in():
    faults = {
        mode: float(
            subprocess.run([sys.executable, "-c", CODE, mode], capture_output=True, check=True, env=os.environ).stdout
        )
        for mode in ("keep", "give_back")
    }
    # 4096 x 4096 float32 are 16,384 pages.
    assert faults["give_back"] > 10_000
    assert faults["keep"] < 2_000
