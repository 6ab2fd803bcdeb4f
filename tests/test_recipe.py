import subprocess
import sys

import pytest

from vitax import recipe
from vitax.core.errors import UserError
from vitax.specs.kinds import evaluator_data


def with_change(config, path, value):
    *parts, last = path.split(".")
    node = config
    for part in parts:
        node = node[part]
    if value is KeyError:
        del node[last]
    else:
        node[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optimiser", {}, 'optimiser: unknown part of a recipe. Did you mean "optimizer"'),
        ("model", KeyError, "model: missing"),
        ("model.kind", "vti", 'model.kind: unknown name "vti". Did you mean "vit"'),
        ("model.widht", 3, 'model.widht: unknown field. Did you mean "width"'),
        ("model.pool", "avg", "model.pool: 'avg' is not one of 'tok', 'gap', 'map'"),
        ("model.num_heads", 3, "width 32 does not divide into 3 heads"),
        ("objective.mean", (0.5, 0.5), r"objective.mean: 2 values for images of 3 channel\(s\)"),
        ("objective.std", (0.5, 0.5), "objective.std: 2 values"),
        ("data.image_size", 18, "patches"),
        ("data.source.kind", "sinthetic", 'Did you mean "synthetic"'),
        ("data.source.chanels", 3, 'data.source.chanels: unknown field. Did you mean "channels"'),
        ("data.ops", ({"kind": "resice"},), 'data.ops.0.kind: unknown name "resice". Did you mean "resize"'),
        ("optimizer.lr", "fast", "optimizer.lr: expected float"),
        ("optimizer.frozen", ("encodr/",), "encodr/"),
        ("schedule.kind", "cosin", 'Did you mean "cosine"'),
        ("duration", {"step": 3}, 'duration: unknown unit "step". Did you mean "steps"'),
        ("duration", {"steps": 3, "epochs": 1}, "set exactly one"),
        ("duration", {"steps": 0}, "less than one step"),
        ("evaluators.val.evry", {"steps": 1}, 'evaluators.val.evry: unknown field. Did you mean "every"'),
        ("evaluators.val.data.batchsize", 3, 'evaluators.val.data.batchsize: unknown field. Did you mean "batch_size"'),
        ("mesh", {"dta": 2}, 'mesh.dta: unknown field. Did you mean "data"'),
        ("rules", {"embd": "fsdp"}, 'rules: unknown logical axis "embd"'),
        ("remat", "ful", "ful"),
        ("dtype", "float16", 'dtype: "float16" is not one of'),
        ("seed", "x", "seed: expected int"),
        ("chip", 3, "chip: expected Mapping, got 3"),
        ("chip", {"usd_per_hr": 1.0}, 'chip.usd_per_hr: unknown field. Did you mean "usd_per_hour"'),
        ("chip", {"peak_bf16_flops": "fast"}, "chip.peak_bf16_flops: expected a number above 0"),
    ],
)
def test_errors_name_the_path_and_the_mend_before_any_device_is_touched(tiny, path, value, message):
    config = with_change(tiny(), path, value)
    with pytest.raises(UserError, match=message):
        recipe.build(config)


def test_building_opens_no_data(tiny):
    built = recipe.build(tiny(data__source={"kind": "folder", "path": "/nowhere"}))
    assert built.total_steps == 12
    assert built.forward_flops_per_example > 0
    with pytest.raises(UserError, match="/nowhere"):
        built.data.pipeline(0)


def test_a_wrong_statement_about_the_data_is_an_error(tiny):
    config = tiny(data__source={"kind": "embedded", "name": "digits"}, data__num_classes=10)
    with pytest.raises(UserError, match="states 100, the source holds 797. Set --config.data.num_examples=797"):
        recipe.build(config).data.pipeline(0)


def test_durations_in_any_unit(tiny):
    for duration in ({"steps": 25}, {"epochs": 4}, {"examples": 400}):
        assert recipe.build(tiny(duration=duration)).total_steps == 25


def test_evaluation_data_takes_what_it_leaves_out_from_the_training_data(tiny):
    data = evaluator_data(recipe.build(tiny()).config, "val")
    assert (data.num_classes, data.image_size, data.num_examples, data.shuffle, data.ops) == (4, 16, 21, False, ())


def test_compute_dtype_follows_the_platform(tiny):
    built = recipe.build(tiny())
    assert [built.dtype(p) for p in ("cpu", "tpu", "gpu")] == ["float32", "bfloat16", "bfloat16"]
    assert recipe.build(tiny(dtype="bfloat16")).dtype("cpu") == "bfloat16"


def test_what_a_resume_may_change(tiny):
    old = recipe.build(tiny()).config
    free = {"accumulate": 2, "remat": "full", "unroll": False, "log": {"every": {"steps": 9}}, "mesh": {"fsdp": 2}}
    assert recipe.resume_differences(old, recipe.build(tiny(**free))) == []
    assert recipe.resume_differences(old, recipe.build(tiny(data__threads=1))) == []
    assert recipe.resume_differences(old, recipe.build(tiny(model__attention_kernel="pallas"))) == []
    assert recipe.resume_differences(old, recipe.build(tiny(seed=2))) == ["seed: 1 -> 2"]
    longer = {"duration": {"steps": 99}}
    assert recipe.resume_differences(old, recipe.build(tiny(**longer))) == ["duration.steps: 12 -> 99"]
    constant = {"schedule": {"kind": "constant"}}
    old = recipe.build(tiny(**constant)).config
    assert recipe.resume_differences(old, recipe.build(tiny(**constant, **longer))) == []


def test_building_starts_no_device():
    script = (
        "from vitax import recipe; built = recipe.load('vit_i1k:B/32'); built.forward_flops_per_example; "
        "from jax._src import xla_bridge; assert not xla_bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
