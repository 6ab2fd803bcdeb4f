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


# ViT paper, Table 3, written down here once more: variant -> base LR, decay, weight decay, dropout, epochs.
TABLE_3 = {
    ("vit_jft", "B/32,epochs=7"): (8e-4, "linear", 0.1, 0.0, 7),
    ("vit_jft", "B/16,epochs=7"): (8e-4, "linear", 0.1, 0.0, 7),
    ("vit_jft", "L/32,epochs=7"): (6e-4, "linear", 0.1, 0.0, 7),
    ("vit_jft", "L/16,epochs=7"): (4e-4, "linear", 0.1, 0.0, 7),
    ("vit_jft", "L/16,epochs=14"): (4e-4, "linear", 0.1, 0.0, 14),
    ("vit_jft", "H/14,epochs=14"): (3e-4, "linear", 0.1, 0.0, 14),
    ("vit_i21k", "B/32,epochs=90"): (1e-3, "linear", 0.03, 0.1, 90),
    ("vit_i21k", "B/16,epochs=90"): (1e-3, "linear", 0.03, 0.1, 90),
    ("vit_i21k", "L/32,epochs=30"): (1e-3, "linear", 0.03, 0.1, 30),
    ("vit_i21k", "L/32,epochs=90"): (1e-3, "linear", 0.03, 0.1, 90),
    ("vit_i21k", "L/16,epochs=30"): (1e-3, "linear", 0.03, 0.1, 30),
    ("vit_i21k", "L/16,epochs=90"): (1e-3, "linear", 0.03, 0.1, 90),
    ("vit_i1k", "B/32"): (3e-3, "cosine", 0.3, 0.1, 300),
    ("vit_i1k", "B/16"): (3e-3, "cosine", 0.3, 0.1, 300),
    ("vit_i1k", "L/32"): (3e-3, "cosine", 0.3, 0.1, 300),
    ("vit_i1k", "L/16"): (3e-3, "cosine", 0.3, 0.1, 300),
}
# ViT paper, Table 1: depth, width, MLP, heads.
TABLE_1 = {"B": (12, 768, 3072, 12), "L": (24, 1024, 4096, 16), "H": (32, 1280, 5120, 16)}
# Variants without epochs, which are the rows of Table 2 where it has one.
SHORT = {
    **{("vit_jft", model): ("vit_jft", f"{model},epochs=7") for model in ("B/32", "B/16", "L/32")},
    **{("vit_jft", model): ("vit_jft", f"{model},epochs=14") for model in ("L/16", "H/14")},
    **{("vit_i21k", model): ("vit_i21k", f"{model},epochs=90") for model in ("B/32", "B/16", "L/32", "L/16")},
}


def test_table_3_covers_every_variant_that_is_listed():
    assert set(TABLE_3) == {(n, v) for n, v in ALL if n in ("vit_jft", "vit_i21k", "vit_i1k")}


@pytest.mark.parametrize(("name", "variant"), [*TABLE_3, *SHORT])
def test_pre_training_presets_carry_table_3(name, variant):
    c = config_files.load(f"{name}:{variant}")
    got = (c.optimizer.lr, c.schedule.kind, c.optimizer.weight_decay, c.model.get("dropout", 0.0), c.duration.epochs)
    assert got == TABLE_3[SHORT.get((name, variant), (name, variant))]
    assert c.optimizer.kind == "adamw"
    assert (c.data.batch_size, c.data.image_size, c.schedule.warmup.to_dict()) == (4096, 224, {"steps": 10_000})
    assert (c.optimizer.b1, c.optimizer.b2) == (0.9, 0.999)
    # The paper's weight decay is multiplied by the learning rate.
    assert c.optimizer.get("weight_decay_scale", "lr") == "lr"
    assert c.optimizer.get("clip_norm") == (1.0 if name == "vit_i1k" else None)
    size, patch = variant.partition(",")[0].split("/")
    assert (c.model.depth, c.model.width, c.model.mlp_dim, c.model.num_heads) == TABLE_1[size]
    assert c.model.patch_size == int(patch)
    images = {"vit_jft": (303_000_000, 18_291), "vit_i21k": (12_400_000, 21_843), "vit_i1k": (1_281_167, 1_000)}
    assert (c.data.num_examples, c.data.num_classes) == images[name]


@pytest.mark.parametrize("name", ["vit_jft", "vit_i21k"])
def test_the_default_is_the_row_of_table_2(name):
    default, (top1, core_days) = config_files.load(name), {"vit_jft": (87.76, 680), "vit_i21k": (85.30, 230)}[name]
    assert (default.paper.expected["imagenet top-1, Table 2"], default.paper.core_days) == (top1, core_days)
    assert default == config_files.load(f"{name}:L/16")


def test_other_epochs_than_the_papers_promise_nothing():
    for spec in ("vit_jft:L/16,epochs=3", "vit_i21k:L/16,epochs=30", "vit_i1k:L/16,epochs=90"):
        paper = config_files.load(spec).paper
        assert (dict(paper.expected), paper.core_days) == ({}, None), spec


def test_every_recipe_takes_the_usual_overrides():
    for name, variant in ALL:
        overrides = ["steps=60"], ["steps=7"], ["steps=1"]
        keys = ("duration", "checkpoint.every", "log.every")
        arguments = [f"--config.{k}.{o[0]}" for k, o in zip(keys, overrides)] + ["--config.data.batch_size=256"]
        built = recipe.load(f"{name}:{variant}", arguments)
        assert (built.total_steps, built.data.batch_size) == (60, 256)
        assert built.every(built.checkpoint.every, "checkpoint.every") == 7
