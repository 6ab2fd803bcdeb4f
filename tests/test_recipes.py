"""Every file in configs/: it resolves as it did, and two shrunk steps of it run."""

import math

import jax
import pytest

from vitax import catalogue, config_files, recipe
from vitax.core import metrics
from vitax.parallel.mesh import MeshSpec, build_mesh

ALL = [(name, variant) for name in config_files.names() for variant in config_files.module(name).VARIANTS]


def shrink(config):
    """A generic shrink: small model, made-up data, the recipe's own everything else."""
    config = config.copy_and_resolve_references()
    config.model.update({"width": 32, "depth": 2, "mlp_dim": 64, "num_heads": 2, "patch_size": 8})
    ops = [
        {k: v for k, v in op.items() if k != "size"} | ({"smaller": 18} if "smaller" in op else {})
        for op in config.data.ops
    ]
    config.data.update({"image_size": 16, "num_classes": 10, "num_examples": 24, "batch_size": 8})
    config.data.ops = tuple(ops)
    config.data.source = {"kind": "synthetic"}
    for name in config.get("evaluators") or {}:
        data = config.evaluators[name].data
        own = [dict(op) | ({"smaller": 18} if "smaller" in op else {}) for op in data.get("ops", ())]
        config.evaluators[name].data = {"source": {"kind": "synthetic"}, "num_examples": 11, "ops": tuple(own)}
    config.duration = {"steps": 2}
    config.init_from = None
    return recipe.build(config)


# Variants of one file differ in sizes, which the shrink takes away.
EACH_FILE = [(name, config_files.module(name).VARIANTS[0]) for name in config_files.names()]


@pytest.mark.parametrize(("name", "variant"), ALL, ids=[f"{n}:{v}" for n, v in ALL])
def test_builds_at_full_size(name, variant):
    assert recipe.load(f"{name}:{variant}").total_steps > 0


@pytest.mark.parametrize(("name", "variant"), EACH_FILE, ids=[f"{n}:{v}" for n, v in EACH_FILE])
def test_runs_two_shrunk_steps(name, variant):
    built = shrink(config_files.load(f"{name}:{variant}"))
    program = built.program(build_mesh(MeshSpec(), jax.devices()[:1]))
    pipeline = built.data.pipeline(built.seed)
    state = program.init()
    for n in range(2):
        state, measured = program.step(state, program.put(pipeline.batch(n)))
        assert all(math.isfinite(v) for v in metrics.compute(measured).values())
    for evaluator, _ in built.evaluators():
        assert 0 <= evaluator.build(program)(state)["accuracy"] <= 1


def test_catalogue_lists_every_variant_with_its_row():
    rows = catalogue.recipes()
    assert {(r["name"], r["variant"]) for r in rows} == set(ALL)
    row = next(r for r in rows if r["variant"] == "L/16,epochs=14")
    assert row["core_days"] == 680
    assert row["expected"]["imagenet top-1, Table 2"] == 87.76


# ViT paper, Table 3: learning rate, decay, weight decay, dropout, epochs.
TABLE_3 = {
    ("vit_jft", "B/32"): (8e-4, "linear", 0.1, 0.0, 7),
    ("vit_jft", "B/16"): (8e-4, "linear", 0.1, 0.0, 7),
    ("vit_jft", "L/32"): (6e-4, "linear", 0.1, 0.0, 7),
    ("vit_jft", "L/16"): (4e-4, "linear", 0.1, 0.0, 14),
    ("vit_jft", "H/14"): (3e-4, "linear", 0.1, 0.0, 14),
    ("vit_i21k", "B/16"): (1e-3, "linear", 0.03, 0.1, 90),
    ("vit_i21k", "L/16"): (1e-3, "linear", 0.03, 0.1, 90),
    ("vit_i21k", "L/16,epochs=30"): (1e-3, "linear", 0.03, 0.1, 30),
    ("vit_i1k", "B/16"): (3e-3, "cosine", 0.3, 0.1, 300),
    ("vit_i1k", "L/16"): (3e-3, "cosine", 0.3, 0.1, 300),
}


@pytest.mark.parametrize(("name", "variant"), TABLE_3)
def test_pre_training_presets_carry_table_3(name, variant):
    c = config_files.load(f"{name}:{variant}")
    got = (c.optimizer.lr, c.schedule.kind, c.optimizer.weight_decay, c.model.get("dropout", 0.0), c.duration.epochs)
    assert got == TABLE_3[name, variant]
    assert (c.data.batch_size, c.data.image_size, c.schedule.warmup.steps) == (4096, 224, 10_000)
    assert (c.optimizer.b1, c.optimizer.b2) == (0.9, 0.999)
    assert c.optimizer.get("weight_decay_scale", "lr") == "lr"
    assert c.optimizer.get("clip_norm") == (1.0 if name == "vit_i1k" else None)


def test_every_recipe_takes_the_usual_overrides():
    for name, variant in ALL:
        overrides = ["steps=60"], ["steps=7"], ["steps=1"]
        keys = ("duration", "checkpoint.every", "log.every")
        arguments = [f"--config.{k}.{o[0]}" for k, o in zip(keys, overrides)] + ["--config.data.batch_size=256"]
        built = recipe.load(f"{name}:{variant}", arguments)
        assert (built.total_steps, built.data.batch_size) == (60, 256)
        assert built.every(built.checkpoint.every, "checkpoint.every") == 7
