"""``vitax plan``: arithmetic without a compiler, and the TPU compiler where libtpu is installed."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import types

import pytest

from vitax import estimate, plan, plan_search, plan_text, recipe
from vitax.__main__ import main
from vitax.core.errors import UserError
from vitax.cost import chips, hlo
from vitax.cost.topology import Topology, prepare
from vitax.parallel.mesh import MeshSpec

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs the extra `plan` (libtpu)"
)
SMALL = [
    "--config.model.width=64",
    "--config.model.mlp_dim=128",
    "--config.model.num_heads=2",
    "--config.model.depth=2",
]
SMALL += ["--config.data.num_classes=10", "--config.data.batch_size=64", "--config.model.pre_logits=False"]


def load(name="vit_jft:B/16", *overrides):
    return recipe.load(name, [*SMALL, *overrides])


@pytest.fixture(scope="module")
def small_plan():
    return plan.plan(load(), Topology.parse("v3:2x2"))


# ---- topologies ---------------------------------------------------------------


def test_a_topology_knows_its_devices():
    assert Topology.parse("v3:8x8").num_devices == 128
    assert Topology.parse("v4:4x4x4").num_devices == 64
    assert Topology.parse("v5e:16x16", slices=2).num_devices == 512
    assert str(Topology.parse("v5e:16x16", slices=2)) == "2 x v5e:16x16"


@pytest.mark.parametrize(
    ("text", "slices", "message"),
    [
        ("v9:2x2", 1, 'unknown generation "v9"'),
        ("v5:2x2", 1, "Did you mean"),
        ("v3", 1, "is no shape of a slice"),
        ("v3:8", 1, "Write GENERATION:SHAPE"),
        ("v3:0x8", 1, "is no shape of a slice"),
        ("v3:8x8", 0, "--slices 0"),
        ("v5e:2x2x2", 1, "have 2 axes, not 3"),
        ("v5e:32x16", 1, "at most 256. Join several with --slices"),
    ],
)
def test_wrong_topologies_say_how_to_write_them(text, slices, message):
    with pytest.raises(UserError, match=message):
        Topology.parse(text, slices)


def test_the_missing_compiler_names_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[plan\]'"):
        Topology.parse("v3:2x2").devices()


def test_preparing_leaves_what_the_user_set():
    env = {"ALLOW_MULTIPLE_LIBTPU_LOAD": "0"}
    prepare(env)
    assert env["ALLOW_MULTIPLE_LIBTPU_LOAD"] == "0"
    assert env["TPU_SKIP_MDS_QUERY"] == "1"


@needs_compiler
@pytest.mark.parametrize("text", ["v2:4x4", "v3:4x4", "v4:2x2x4", "v5e:4x4", "v5p:2x2x4", "v6e:4x4"])
def test_every_generation_shows_the_devices_of_real_jobs(text):
    topology = Topology.parse(text)
    devices = topology.devices()
    assert len(devices) == topology.num_devices
    assert chips.lookup(devices[0].device_kind) is topology.chip


@needs_compiler
def test_a_slice_of_odd_sides_says_what_hosts_hold():
    with pytest.raises(UserError, match="hosts of this generation hold 2x2 chips.*Use even sizes"):
        Topology.parse("v3:3x3").devices()


def test_replicas_follow_the_slices():
    assert MeshSpec().over_slices(4) == MeshSpec(replica=4)
    assert MeshSpec(replica=8).over_slices(4) == MeshSpec(replica=8)


# ---- arithmetic ---------------------------------------------------------------


def test_fast_needs_no_compiler_and_no_device():
    code = (
        "import sys; sys.modules['libtpu'] = None\n"
        "from vitax.__main__ import main\n"
        f"code = main({['plan', '--config', 'vit_jft:B/16', '--topology', 'v3:2x2', '--fast', '--json', *SMALL]!r})\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fits"] is True
    assert found["core_days_source"] == "mfu"
    assert found["compiler_step_seconds"] is None


def test_the_state_is_counted_exactly_in_every_sharding():
    made = load("vit_jft:B/16", "--config.optimizer.ema=0.999")
    whole = estimate.state_bytes(made.program(estimate.abstract_mesh(MeshSpec().sizes(8)), "tpu"))
    params = sum(x.size for x in __import__("jax").tree.leaves(made.abstract_params))
    assert whole["parameters"] == whole["averages"] == 4 * params
    assert whole["optimizer"] == 8 * params + 2 * 4 + 4  # two moments, two counts, the step
    sharded = estimate.state_bytes(made.program(estimate.abstract_mesh(MeshSpec(data=1, fsdp=8).sizes(8)), "tpu"))
    assert whole["parameters"] / 8 < sharded["parameters"] < whole["parameters"] / 4


def test_remat_and_microbatches_save_memory_by_arithmetic():
    made, topology = load(), Topology.parse("v3:2x2")
    program = made.program(estimate.abstract_mesh(MeshSpec().sizes(8)), "tpu")
    kept = {
        remat: estimate.stack_of(made, program, remat=remat).kept_bytes()
        for remat in ("none", "dots_with_no_batch_dims", "full")
    }
    assert kept["none"] > kept["dots_with_no_batch_dims"] > kept["full"]
    used = [
        estimate.estimate(made, program, topology, topology.chip, estimate.stack_of(made, program, accumulate=k), k)[
            "hbm_bytes_per_core"
        ]
        for k in (1, 4)
    ]
    assert used[1] < used[0]


def test_a_network_of_inverted_bottlenecks_is_planned_by_arithmetic():
    made = recipe.load("efficientnet_i1k:B0", ["--config.data.batch_size=1024"])
    found = plan.plan(made, Topology.parse("v3:2x2"), fast=True)
    # 2.35 GiB by the compiler.
    assert found["hbm_bytes_per_core"] / 2**30 == pytest.approx(2.35, rel=0.2)
    # 0.386 GMACs x 2 x 3 x 1,281,167 images x 350 epochs at 40% of 61.5 TFLOP/s a core.
    assert found["core_days"] == pytest.approx(0.488, rel=0.01)
    # Statistics are part of the state.
    split = found["hbm_split_bytes"]
    assert split["parameters"] == split["averages"] == 4 * (5_288_548 + 42_016)


def test_a_stated_mfu_decides_the_core_days():
    found = plan.plan(load(), Topology.parse("v3:2x2"), mfu=0.25, fast=True)
    assert found["core_days_source"] == "mfu"
    peak = 61.5e12 * 8
    assert found["mfu_step_seconds"] == pytest.approx(found["model_flops_per_step"] / peak / 0.25)
    assert found["core_days"] == pytest.approx(found["mfu_step_seconds"] * found["steps"] * 8 / 86400)
    assert found["usd"] == pytest.approx(found["hours"] * 4 * 2.00)
    with pytest.raises(UserError, match="--mfu 1.5"):
        plan.plan(load(), Topology.parse("v3:2x2"), mfu=1.5, fast=True)


def test_a_recipe_replaces_figures_of_the_chip():
    found = plan.plan(load("vit_jft:B/16", "--config.chip.usd_per_hour=0.5"), Topology.parse("v3:2x2"), fast=True)
    assert found["usd"] == pytest.approx(found["hours"] * 4 * 0.5)
    slower = plan.plan(
        load("vit_jft:B/16", "--config.chip.peak_bf16_flops=61.5e12"), Topology.parse("v3:2x2"), fast=True
    )
    assert slower["mfu_step_seconds"] == pytest.approx(2 * found["mfu_step_seconds"])


def test_other_chips_convert_their_core_days_and_say_so():
    found = plan.plan(load(), Topology.parse("v4:2x2x1"), fast=True)
    assert found["devices"] == found["chips"] == 4
    assert found["tpu_v3_core_days_source"].startswith("converted")


def test_a_batch_that_does_not_divide_is_bad_input():
    with pytest.raises(UserError, match="do not divide over 8 devices"):
        plan.plan(load("vit_jft:B/16", "--config.data.batch_size=12"), Topology.parse("v3:2x2"), fast=True)


def test_the_pallas_kernel_keeps_no_scores_by_arithmetic():
    kept = {}
    for kernel in ("xla", "pallas"):
        made = load("vit_jft:B/16", f"--config.model.attention_kernel={kernel}")
        program = made.program(estimate.abstract_mesh(MeshSpec().sizes(8)), "tpu")
        kept[kernel] = estimate.stack_of(made, program)
        found = plan.plan(made, Topology.parse("v3:2x2"), fast=True)
        kept[kernel, "model"] = found["model_flops_per_step"]
    assert kept["pallas"].kept_bytes() < kept["xla"].kept_bytes()
    # 8 examples, 2 layers: 2 arrays of the stream and 4 of two heads side by side, 200 x 128, and the hidden layer.
    assert kept["pallas"].kept_bytes() == 8 * 2 * 2 * 200 * (2 * 64 + 4 * 128 + 128)
    assert kept["pallas", "model"] == kept["xla", "model"]


def test_kernels_that_declare_nothing_have_what_the_walk_counts_besides():
    product, kernel = hlo.Op("p", "dot", "", 60, 0, 1), hlo.Op("k", "custom-call", "", 0, 0, None, 2, kernel=True)
    program = types.SimpleNamespace(executed_flops=800, mesh=types.SimpleNamespace(size=8))
    assert [op.flops for op in plan._with_kernels([product, kernel], program)] == [60, 20]
    declared = dataclasses.replace(kernel, flops=7)
    assert plan._with_kernels([product, declared], program) == [product, declared]


def test_the_pallas_kernel_refuses_other_devices_before_anything_compiles():
    with pytest.raises(UserError, match='kernel for TPUs, and the devices are of platform "cpu"'):
        load("vit_jft:B/16", "--config.model.attention_kernel=pallas").program().abstract_state  # noqa: B018


def test_vector_memory_that_a_kernel_lacks_is_no_question_of_fit():
    with pytest.raises(UserError, match=r'set model.attention_kernel to "xla".*Used 19.14M'):
        plan._out_of_memory("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 19.14M", None)


def test_search_ranks_and_gives_overrides_to_paste():
    found = plan_search.search(load(), Topology.parse("v3:2x2"), fast=True)
    times = [row["step_seconds"] for row in found["candidates"]]
    assert times == sorted(times)
    assert found["best"] == found["candidates"][0]["overrides"]
    again = load("vit_jft:B/16", *found["best"])
    assert again.mesh_spec.sizes(8)
    assert "Best that fits:" in plan_text.search_lines(found)


def test_search_says_when_nothing_fits():
    huge = ["--config.model.width=32768", "--config.model.num_heads=64", "--config.model.mlp_dim=131072"]
    made = load("vit_jft:B/16", *huge)
    found = plan_search.search(made, Topology.parse("v3:2x2"), fast=True)
    assert found["best"] == []
    assert not any(row["fits"] for row in found["candidates"])
    assert any("None fits" in line for line in plan_text.search_lines(found))


# ---- the compiler -------------------------------------------------------------


@needs_compiler
def test_the_plan_of_a_compiled_step(small_plan):
    assert small_plan["fits"] is True
    assert sum(small_plan["hbm_split_bytes"].values()) == small_plan["hbm_bytes_per_core"]
    assert 0 < small_plan["hbm_bytes_per_core"] < small_plan["hbm_limit_bytes"]
    assert small_plan["collectives"]["all-reduce"]["count"] >= 1
    assert small_plan["network_seconds"] > 0
    assert small_plan["core_days_source"] == "compiler"
    assert small_plan["self_declared_step_seconds"] is None
    assert small_plan["core_days"] > 0
    # The per-op roofline is calibrated on ViTs of real size; a toy is nearer to launch overheads.
    assert small_plan["roofline_step_seconds"] == pytest.approx(small_plan["compiler_step_seconds"], rel=0.3)
    assert any("FITS" in line for line in plan_text.lines(small_plan))


@needs_compiler
def test_matrix_flops_of_the_compiled_step_equal_the_walk(small_plan):
    program = plan.build_program(load(), Topology.parse("v3:2x2"))
    # The compiler drops nothing here and recomputes nothing.
    assert small_plan["flops_per_core"] == pytest.approx(program.executed_flops / 8, rel=0.01)


@needs_compiler
def test_a_scanned_step_counts_every_layer_and_has_no_compiler_estimate():
    # Deep enough that the compiler does not unroll the loop itself.
    made = load("vit_jft:B/16", "--config.unroll=False", "--config.model.depth=5")
    scanned = plan.plan(made, Topology.parse("v3:2x2"))
    assert scanned["compiler_step_seconds"] is None
    assert scanned["core_days_source"] == "roofline"
    program = plan.build_program(made, Topology.parse("v3:2x2"))
    assert scanned["flops_per_core"] == pytest.approx(program.executed_flops / 8, rel=0.01)


@needs_compiler
def test_a_hand_written_kernel_has_no_time_of_the_compilers_own():
    sharding = ["--config.mesh.data=1", "--config.mesh.fsdp=8"]
    made = load("vit_jft:B/16", "--config.model.attention_kernel=pallas", *sharding)
    found = plan.plan(made, Topology.parse("v3:2x2"))
    assert found["compiler_step_seconds"] is None
    assert found["self_declared_step_seconds"] > 0
    assert found["core_days_source"] == "roofline"
    program = plan.build_program(made, Topology.parse("v3:2x2"))
    assert found["flops_per_core"] == pytest.approx(program.executed_flops / 8, rel=0.01)
    assert any("if hand-written kernels cost what they declare" in line for line in plan_text.lines(found))


@needs_compiler
def test_v5e_states_no_time():
    found = plan.plan(load(), Topology.parse("v5e:2x4"))
    assert found["compiler_step_seconds"] is None
    assert found["roofline_step_seconds"] > 0
    assert found["chips"] == found["devices"] == 8


@needs_compiler
def test_slices_meet_over_the_replica_axis():
    found = plan.plan(load(), Topology.parse("v4:2x2x1", slices=2))
    assert found["mesh"] == {"replica": 2, "data": 4}
    assert found["devices"] == 8


@needs_compiler
def test_out_of_memory_is_an_answer_with_the_missing_bytes():
    big = ["--config.model.width=1024", "--config.model.num_heads=16", "--config.model.mlp_dim=4096"]
    made = load("vit_jft:B/16", *big, "--config.data.batch_size=16384", "--config.data.image_size=448")
    found = plan.plan(made, Topology.parse("v2:2x2"))
    assert found["fits"] is False
    assert found["missing_bytes"] == found["hbm_bytes_per_core"] - found["hbm_limit_bytes"] > 0
    assert found["core_days_source"] == "mfu"
    assert any("DOES NOT FIT" in line for line in plan_text.lines(found))


@needs_compiler
def test_the_lock_of_another_process_is_explained(tmp_path):
    command = [sys.executable, "-m", "vitax", "plan", "--config", "vit_jft:B/16", "--topology", "v3:2x2", *SMALL]
    hold = "from vitax.cost.topology import Topology; Topology.parse('v3:2x2').devices(); print('held', flush=True)"
    env = {**os.environ, "ALLOW_MULTIPLE_LIBTPU_LOAD": "0"}
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{hold}; input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    try:
        assert holder.stdout.readline().strip() == "held"
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    finally:
        holder.kill()
        holder.wait()
    assert done.returncode == 2
    assert "libtpu's lock" in done.stderr


@needs_compiler
def test_search_lets_the_compiler_judge_the_most_promising():
    found = plan_search.search(load(), Topology.parse("v3:2x2"), fast=False, compile_at_most=1)
    (row,) = found["candidates"]
    assert row["source"] == "roofline"
    assert row["fits"] is True
    assert row["hbm_bytes_per_core"] != row["arithmetic_hbm_bytes"]
    assert found["best"] == row["overrides"]


@needs_compiler
def test_rows_of_the_benchmark():
    from benchmarks import tpu_compile

    row = tpu_compile.measure("vit_jft:B/16", "v3:2x2", 64, "fsdp", SMALL)
    wanted = "model topology global_batch sharding remat unroll ms bytes hbm_bytes compile_seconds"
    assert set(wanted.split()) <= set(row)
    assert row["ms"] > 0
    assert row["global_batch"] == 64
    assert tpu_compile.line(row)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology", "v33:8x8"], 'unknown generation "v33". Did you mean "v3"?'),
        (["--topology", "v3:2x2", "--slices", "0"], "--slices 0: expected at least 1"),
        (["--topology", "v3:2x2", "--fast", "--config.data.batch_size=12"], "do not divide over 8 devices"),
        (["--topology", "v3:2x2", "--fast", "--config.mesh.fsdp=3"], "does not use the 8 devices"),
        (["--topology", "v3:2x2", "--fast", "--mfu", "40"], "--mfu 40: expected above 0 and at most 1"),
        (["--topologi", "v3:2x2"], "--topology"),
    ],
)
def test_bad_input_exits_with_2(arguments, message, capsys):
    assert main(["plan", "--config", "vit_jft:B/16", *SMALL, *arguments]) == 2
    assert message in capsys.readouterr().err


def presets():
    from vitax import catalogue

    return [
        f"{row['name']}:{row['variant']}"
        for row in catalogue.recipes("vit_*")
        if row["variant"] and row["name"] != "vit_cifar10"
    ]


@pytest.mark.parametrize("name", presets())
def test_every_preset_of_the_paper_has_an_answer(name):
    made = recipe.load(name)
    table_2 = bool((made.config["paper"] or {}).get("core_days"))
    for where in ("v3:8x8", "v4:4x4x4", "v5e:8x8") if table_2 else ("v3:8x8",):
        found = plan.plan(made, Topology.parse(where), fast=True)
        assert isinstance(found["fits"], bool)
        assert found["core_days"] > 0
        assert plan_text.lines(found)
        # Batches of 512 and 4096 divide over 128 cores and 64 chips.
        assert found["batch_size"] % found["devices"] == 0
