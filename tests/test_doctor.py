"""Each check with the thing it looks for broken on purpose."""

import json
import os
import resource
import sys
import time

import pytest

from vitax import doctor
from vitax.__main__ import main
from vitax.doctor import FAIL, OK, WARN

CPU = {
    "jax": "0.10.2",
    "dtype": "float32",
    "devices": [{"id": 0, "kind": "cpu", "platform": "cpu", "problem": None, "memory": None, "used": None}],
}


def by_name(checks):
    return {check.name: check for check in checks}


@pytest.fixture(scope="module")
def here():
    """What this machine shows."""
    return doctor.probe(os.environ, 120)


def test_the_probe_starts_jax_and_computes_on_every_device(here):
    assert here["dtype"] == "float32"
    assert [row["problem"] for row in here["devices"]] == [None] * 8


def test_a_sound_machine_passes(here):
    found = by_name(doctor.devices({}, here, {}))
    assert {check.status for check in found.values()} == {OK}
    assert "8 x cpu (cpu)" in found["devices"].found
    assert "8 of 8 devices" in found["compute"].found
    assert "float32" in found["dtype"].found


def test_a_start_that_hangs_is_ended_and_told():
    begun = time.monotonic()
    probed = doctor.probe(os.environ, 0.5, "import time; time.sleep(60)")
    assert time.monotonic() - begun < 20
    (check,) = doctor.devices({}, probed, {"tpu": ["/dev/accel0"]})
    assert check.status == FAIL
    assert "within 0.5 s" in check.found
    assert "on all hosts at once" in check.fix


def test_a_start_that_fails_tells_why():
    probed = doctor.probe(os.environ, 20, "raise RuntimeError('no TPU for you')")
    (check,) = doctor.devices({"JAX_PLATFORMS": "tpu"}, probed, {})
    assert (check.status, check.found) == (FAIL, "RuntimeError: no TPU for you")
    assert "JAX_PLATFORMS=tpu" in check.fix
    probed = doctor.probe(os.environ, 20, "import no_such_jax")
    (check,) = doctor.devices({}, probed, {})
    assert "pip install" in check.fix
    probed = doctor.probe(os.environ, 20, "import os; os._exit(3)")
    assert "exit code 3" in probed["error"]


def test_a_device_that_computes_wrong_fails():
    wrong = {**CPU, "devices": [{**CPU["devices"][0], "problem": "comes out wrong"}]}
    assert by_name(doctor.devices({}, wrong, {}))["compute"].status == FAIL
    broken = {**CPU, "dtype": "ImportError: flax"}
    assert by_name(doctor.devices({}, broken, {}))["dtype"].status == FAIL


def test_an_accelerator_that_lies_idle_fails_with_the_extra_to_install(tmp_path):
    (tmp_path / "dev").mkdir()
    assert doctor.accelerator_files(str(tmp_path)) == {}
    (tmp_path / "dev" / "nvidia0").touch()
    (tmp_path / "dev" / "nvidiactl").touch()
    files = doctor.accelerator_files(str(tmp_path))
    assert files == {"cuda": [str(tmp_path / "dev" / "nvidia0")]}
    check = by_name(doctor.devices({}, CPU, files))["accelerator"]
    assert check.status == FAIL
    assert "[cuda]" in check.fix
    check = by_name(doctor.devices({"JAX_PLATFORMS": "cpu"}, CPU, files))["accelerator"]
    assert (check.status, check.fix) == (WARN, "unset JAX_PLATFORMS")
    gpu = {
        **CPU,
        "devices": [{**CPU["devices"][0], "kind": "H100", "platform": "gpu", "memory": 80 * 2**30, "used": 0}],
    }
    found = by_name(doctor.devices({}, gpu, files))
    assert "accelerator" not in found
    assert "80.0 GiB each" in found["devices"].found


def test_a_tpu_behind_vfio_is_told_from_other_devices(tmp_path):
    (tmp_path / "dev" / "vfio").mkdir(parents=True)
    (tmp_path / "dev" / "vfio" / "0").touch()
    assert doctor.accelerator_files(str(tmp_path)) == {}
    bus = tmp_path / "sys" / "bus" / "pci" / "devices" / "0000:00:04.0"
    bus.mkdir(parents=True)
    (bus / "vendor").write_text("0x1ae0\n")
    assert doctor.accelerator_files(str(tmp_path)) == {"tpu": [str(tmp_path / "dev" / "vfio" / "0")]}


@pytest.mark.parametrize(
    ("env", "status", "text"),
    [
        ({}, OK, "one"),
        ({"JAX_COORDINATOR_ADDRESS": "a", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, OK, "several"),
        ({"JAX_COORDINATOR_ADDRESS": "a", "JAX_NUM_PROCESSES": "2"}, FAIL, "but not JAX_PROCESS_ID"),
        ({"JAX_PROCESS_ID": "0"}, FAIL, "but not JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES"),
        ({"JAX_COORDINATOR_ADDRESS": "a", "JAX_NUM_PROCESSES": "x", "JAX_PROCESS_ID": "0"}, FAIL, "no number"),
        ({"MEGASCALE_NUM_SLICES": "2"}, FAIL, "MEGASCALE_COORDINATOR_ADDRESS is not set"),
    ],
)
def test_variables_of_several_processes_are_all_or_none(env, status, text):
    (check,) = doctor.distributed(env)
    assert check.status == status
    assert text in check.found
    assert bool(check.fix) == (status == FAIL)


def fake_versions(monkeypatch, versions, requires):
    def version(name):
        if name not in versions:
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: requires.get(name))


def test_packages_out_of_their_range_or_missing_fail(monkeypatch):
    wanted = ["jax>=0.10", "flax>=0.12", "gone>=1", 'never; python_version < "3"', 'libtpu>=0.0.52; extra == "plan"']
    fake_versions(monkeypatch, {"jax": "0.9.1", "flax": "0.12.8"}, {"vitax-train": wanted})
    found = list(doctor.packages())
    assert [c.found for c in found if c.status == FAIL] == [
        "jax 0.9.1 is installed, needs >=0.10",
        "gone is not installed (needs >=1)",
    ]
    assert all("pip install" in c.fix for c in found if c.status == FAIL)
    assert [c.found for c in found if c.status == OK] == ["1 within their ranges: flax 0.12.8"]


def test_extras_follow_the_extras_of_others(monkeypatch):
    wanted = ['jax[tpu]; extra == "tpu"', 'libtpu>=0.0.52; extra == "plan"', 'x>=2; extra == "test"']
    requires = {"vitax-train": wanted, "jax": ["numpy", 'libtpu==0.0.40; extra == "tpu"']}
    fake_versions(monkeypatch, {"jax": "0.10.2", "numpy": "2.4", "libtpu": "0.0.52", "x": "1"}, requires)
    found = by_name(doctor.extras())
    assert found["extra plan"].found == "installed"
    assert found["extra tpu"].found == "not installed"  # JAX wants another libtpu
    assert "[tpu]" in found["extra tpu"].fix
    assert found["extra test"].found == "not installed"
    assert found["extra colab"].found == "not installed"


def test_the_install_command_is_never_that_of_the_other_package(monkeypatch, tmp_path):
    for extra in ("", "tpu"):
        assert "pip install vitax" not in doctor.install_command(extra)
        assert "-c constraints.txt -e '." in doctor.install_command(extra)
    monkeypatch.setattr(doctor, "__file__", str(tmp_path / "site-packages" / "vitax" / "doctor.py"))
    assert doctor.install_command("tpu") == "pip install 'vitax-train[tpu]'"


def test_memory_counts_the_limit_of_the_container(tmp_path):
    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    meminfo.write_text(f"MemTotal: {16 * 2**20} kB\nMemAvailable: {12 * 2**20} kB\n")
    assert next(doctor.memory(meminfo, limit)).found == "12.0 GiB free of 16.0 GiB"
    limit.write_text("max")
    assert next(doctor.memory(meminfo, limit)).status == OK
    limit.write_text(str(4 * 2**30))
    (tmp_path / "memory.current").write_text(str(3 * 2**30))
    (check,) = doctor.memory(meminfo, limit)
    assert (check.status, check.found) == (WARN, "1.0 GiB free of 4.0 GiB (limit of the container)")
    assert next(doctor.memory(tmp_path / "none", limit)).status == WARN


@pytest.mark.parametrize(("free", "status"), [(10 * 2**30, OK), (2**30, WARN), (2**20, FAIL)])
def test_disk(monkeypatch, tmp_path, free, status):
    usage = doctor.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage._replace(free=free))
    (check,) = doctor.disk(tmp_path / "not" / "yet" / "made", "disk")
    assert check.status == status
    assert bool(check.fix) == (status != OK)


def test_a_cache_that_cannot_be_written_fails(tmp_path):
    (tmp_path / "file").touch()
    (check,) = doctor.cache({"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "file" / "cache")})
    assert check.status == FAIL
    assert "JAX_COMPILATION_CACHE_DIR" in check.fix
    good = next(doctor.cache({"XDG_CACHE_HOME": str(tmp_path)}))
    assert (good.status, str(tmp_path / "vitax" / "xla") in good.found) == (OK, True)
    assert not list((tmp_path / "vitax" / "xla").iterdir())


def test_data_is_a_warning_at_most(tmp_path):
    assert next(doctor.data({})).status == WARN
    assert next(doctor.data({"VITAX_DATA": str(tmp_path / "none")})).status == WARN
    (tmp_path / "imagenet").mkdir()
    check = next(doctor.data({"VITAX_DATA": str(tmp_path)}))
    assert (check.status, "imagenet" in check.found) == (OK, True)


def test_few_open_files_are_a_warning(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    (check,) = doctor.open_files()
    assert (check.status, check.fix) == (WARN, "ulimit -n 4096")


def test_a_check_that_breaks_is_a_failure_and_not_the_end():
    def broken():
        yield doctor.Check("a", OK, "fine")
        raise ZeroDivisionError("oh")

    found = list(doctor._safely(broken))
    assert [c.status for c in found] == [OK, FAIL]
    assert "ZeroDivisionError: oh" in found[1].found


def test_text_has_each_fix_in_one_line_and_counts():
    fix = "pip install -c constraints.txt " + "x" * 100
    checks = [doctor.Check("a", OK, "fine " * 40), doctor.Check("b", FAIL, "bad", fix)]
    shown = doctor.lines(checks, 80)
    assert f"fix: {fix}" in shown[-2]
    assert shown[-1] == "2 checks: 1 ok, 0 warn, 1 FAIL"
    assert all(len(line) <= 80 for line in shown[:-2])


def test_the_verb_fails_if_anything_is_wrong(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "probe", lambda env, seconds: CPU)
    monkeypatch.setattr(doctor, "accelerator_files", dict)
    monkeypatch.setattr(doctor, "packages", lambda: iter(()))
    assert main(["doctor", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0].keys() == {"name", "status", "found", "fix"}
    assert {"Python", "devices", "memory", "disk here", "cache", "data", "open files", "extra tpu"} <= {
        row["name"] for row in rows
    }
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "FAIL" in out
    assert "fix: set all three, or none" in out


def test_it_starts_without_jax(tmp_path):
    script = "import sys; from vitax import doctor; print([m for m in ('jax', 'numpy', 'flax') if m in sys.modules])"
    out = doctor.subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
