"""Flags, the settings file, and names of accelerators."""

import pytest

from vitax.__main__ import main
from vitax.arguments import parser
from vitax.core.errors import UserError
from vitax.launch import accelerators, settings

FILE = """
config = "quickstart:scratch"
workdir = "gs://bucket/Run_1"
max_restarts = 7

[env]
A = "b c"

[tpu-vm]
project = "p"
zone = "file"
accelerator = "v3-32"
spot = true

[slurm]
partition = "gpu"
"""


def read(*flags):
    return settings.read(parser().parse_args(["launch", *flags]), ["--config.seed=3"])


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path):
    path = tmp_path / "launch.toml"
    path.write_text(FILE)
    got = read("tpu-vm", "--settings", str(path), "--zone", "flag", "--env", "A=d", "--env", "B=e=f")
    assert (got.project, got.zone, got.accelerator, got.spot) == ("p", "flag", "v3-32", True)
    assert (got.max_restarts, got.grace, got.reserved) == (7, 300, False)
    assert got.environment == {"A": "d", "B": "e=f"}
    assert got.name == "vitax-run-1"
    assert got.command[2:] == ["--config", "quickstart:scratch", "--workdir", "gs://bucket/Run_1", "--config.seed=3"]
    assert read("slurm", "--settings", str(path)).partition == "gpu"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('acelerator = "v3-32"', 'acelerator: unknown setting. Did you mean "accelerator"'),
        ('[tpu-vm]\nzones = "z"', 'tpu-vm.zones: unknown setting. Did you mean "zone"'),
        ('partition = "gpu"', "partition: is for slurm. Put it under [slurm]"),
        ('[gke]\nzone = "z"', "gke.zone: is for tpu-vm, queued."),
        ('max_restarts = "3"', "max_restarts: expected a whole number, got '3'"),
        ("spot = 1", "spot: expected true or false"),
        ("env = 1", 'env: expected a list of "NAME=VALUE" or a table'),
        ("x", "launch.toml: "),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path, text, message):
    path = tmp_path / "launch.toml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read("tpu-vm", "--settings", str(path), "--config", "x", "--workdir", "y")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["gkee"], 'unknown launcher "gkee". Did you mean "gke"'),
        (["local", "--zone", "z"], "launch local: --zone is for tpu-vm, queued."),
        (["local"], "launch local: --config, --workdir missing"),
        (["gke", "--config", "x", "--workdir", "y"], "launch gke: --accelerator, --image missing"),
        (["local", "--config", "x", "--workdir", "y", "--processes", "0"], "--processes 0: expected at least 1"),
        (["local", "--config", "x", "--workdir", "y", "--env", "A"], "--env A: expected NAME=VALUE"),
        (["local", "--config", "x", "--workdir", "y", "--name", "A_b"], "--name A_b: expected"),
        (["local", "--config", "x", "--workdir", "s3://y"], "s3:// is not supported"),
        (["local", "--settings", "/nowhere.toml"], "/nowhere.toml: no such file"),
        (
            ["local", "--config", "x", "--workdir", "y", "--nods", "2"],
            'Unknown argument --nods. Did you mean "--nodes"',
        ),
        (["local", "--config", "quickstar", "--workdir", "y", "--devices", "2"], 'Did you mean "quickstart"'),
    ],
)
def test_bad_input_is_one_clear_line(flags, message, capsys):
    assert main(["launch", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("vitax: ")


TPU = ["--config", "quickstart:scratch", "--workdir", "y", "--project", "p", "--zone", "z", "--dry-run"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--accelerator", "v3-33", "--image", "i"], 'no such slice. Did you mean "v3-32"'),
        (["--accelerator", "v5e-16", "--image", "i"], "Of that generation: v5litepod-1, v5litepod-4"),
        (["--accelerator", "v3-32"], "expected one of --image"),
        (["--accelerator", "v3-32", "--image", "i", "--setup", "s"], "got both"),
        (["--accelerator", "v3-32", "--image", "i", "--spot", "--reserved"], "exclude each other"),
        (["--accelerator", "v3-32", "--image", "i"], "does not go on v3:4x4: data.batch_size: 50 examples"),
        (["--accelerator", "v3-32", "--image", "i", "--config.data.batch_size=4194304"], "too much"),
        (["--accelerator", "v3-32", "--image", "i", "--config.mesh.data=3"], "does not use the 32 devices"),
    ],
)
def test_what_does_not_fit_the_slice_is_refused_before_anything_is_created(programs, flags, message, capsys):
    programs.add("gcloud")
    assert main(["launch", "queued", *TPU[:-1], *flags]) == 2
    assert message in capsys.readouterr().err
    assert programs.calls == []


def test_names_count_cores_or_chips_as_the_cloud_does():
    rows = {
        "v2-8": ("v2:2x2", 8, 1),
        "v3-128": ("v3:8x8", 128, 16),
        "v4-128": ("v4:4x4x4", 64, 16),
        "v5litepod-8": ("v5e:2x4", 8, 1),
        "v5litepod-256": ("v5e:16x16", 256, 64),
        "v5p-128": ("v5p:4x4x4", 64, 16),
        "v6e-256": ("v6e:16x16", 256, 64),
    }
    for name, (topology, devices, hosts) in rows.items():
        got = accelerators.parse(name)
        assert (str(got.topology), got.topology.num_devices, got.hosts) == (topology, devices, hosts)
        assert accelerators.parse(topology) == got
    assert accelerators.parse("v4-128").chips_per_host == 4
    assert accelerators.parse("v6e-8").chips_per_host == 8
    assert len(accelerators.table()) == sum(len(f.shapes) for f in accelerators.FAMILIES.values())
