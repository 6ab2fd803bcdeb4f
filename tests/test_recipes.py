"""Every file in configs/: it resolves as it did, and two shrunk steps of it run."""

import json
import math

import jax
import pytest

from tests import bert_recipes
from vitax import catalogue, config_files, recipe
from vitax.__main__ import main
from vitax.core import metrics
from vitax.core.errors import UserError
from vitax.data.transfer_tasks import TASKS, VTAB
from vitax.parallel.mesh import MeshSpec, build_mesh

ALL = [(name, variant) for name in config_files.names() for variant in config_files.module(name).VARIANTS]


# Fields that make each kind small enough for images of 16 px.
_ENCODER = {"width": 32, "depth": 2, "mlp_dim": 64, "num_heads": 2}
SHRUNK = {
    "vit": _ENCODER | {"patch_size": 8},
    "hybrid": _ENCODER | {"patch_size": 2, "stem_blocks": (1,), "stem_width": 8, "stem_groups": 4},
    "bit": {"blocks": (1,), "width_factor": 1, "root_width": 8, "num_groups": 4},
    "gpt": {"width": 16, "depth": 1, "mlp_dim": 32, "num_heads": 2},
    "transformer": {"width": 16, "depth": 1, "mlp_dim": 32, "num_heads": 2},
    "bert": {"width": 16, "depth": 1, "mlp_dim": 32, "num_heads": 2},
    "efficientnet": {"width_factor": 0.5, "depth_factor": 1.0, "stages": ((3, 1, 1, 16, 1), (3, 2, 2, 16, 1))},
}


def shrink(config):
    """A generic shrink: small model, made-up data, the recipe's own everything else."""
    config = config.copy_and_resolve_references()
    config.model.update(SHRUNK[config.model.kind])
    config.duration = {"steps": 2}
    config.init_from = None
    if config.model.kind == "bert":
        return recipe.build(bert_recipes.shrunk(config))
    if config.model.kind == "gpt":
        config.data.update({"length": 64, "num_examples": 8775, "batch_size": 8, "vocab_size": 257})
        if "batch_ramp" in config.data:
            del config.data["batch_ramp"]
        config.data.source = {"kind": "embedded_text", "split": "[:-1]"}
        config.data.tokenizer = {"kind": "bytes"}
        for name in config.get("evaluators") or {}:
            source = {"kind": "embedded_text", "split": "[-1:]"}
            config.evaluators[name].data = {"source": source, "num_examples": 1539, "batch_size": 256}
        return recipe.build(config)
    if config.model.kind == "transformer":
        pairs = {"kind": "embedded_pairs"}
        tokenizer = {"kind": "bpe", "path": "embedded:new_testament_en_fr"}
        config.data.update({"length": 128, "num_examples": 58, "batch_size": 8, "vocab_size": 4096})
        config.data.source, config.data.tokenizer = pairs | {"split": "[:200]"}, tokenizer
        for name in config.get("evaluators") or {}:
            config.evaluators[name].data = {"source": pairs | {"split": "[-8:]"}, "num_examples": 3}
        return recipe.build(config)
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
    return recipe.build(config)


# Variants of one file differ in sizes, which the shrink takes away, and in kinds.
EACH_FILE = [
    *((name, config_files.module(name).VARIANTS[0]) for name in config_files.names()),
    ("vit_jft_baselines", "R50+ViT-L/16,epochs=14"),
]


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
        values = evaluator.build(program)(state)
        share = next(values[name] for name in ("accuracy", "exact_match", "ended") if name in values)
        assert 0 <= share <= 1


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


# ViT paper, Table 4, written down here once more: steps, grid of base LR, held-out share.
SMALL_GRID = (0.001, 0.003, 0.01, 0.03)
TABLE_4 = {
    "imagenet2012": (20_000, (0.003, 0.01, 0.03, 0.06), 0.01),
    "cifar100": (10_000, SMALL_GRID, 0.02),
    "cifar10": (10_000, SMALL_GRID, 0.02),
    "oxford_iiit_pet": (500, SMALL_GRID, 0.1),
    "oxford_flowers102": (500, SMALL_GRID, 0.1),
    "vtab": (2_500, (0.01,), None),
}
FINETUNE = config_files.module("vit_finetune")
DATA_SETS = [*TASKS, *(f"vtab/{name}" for name in VTAB)]


@pytest.mark.parametrize("dataset", DATA_SETS)
def test_fine_tuning_presets_carry_table_4(dataset):
    steps, grid, share = TABLE_4[dataset.partition("/")[0]]
    c = config_files.load(f"vit_finetune:{dataset}")
    assert (c.duration.to_dict(), c.data.batch_size, c.data.image_size) == ({"steps": steps}, 512, 384)
    assert (c.optimizer.kind, c.optimizer.momentum, c.optimizer.weight_decay) == ("sgd", 0.9, 0)
    assert (c.optimizer.clip_norm, c.optimizer.ema, c.schedule.kind) == (1.0, None, "cosine")
    assert FINETUNE.TABLE_4[dataset.partition("/")[0]][:3] == (steps, grid, share)
    assert c.optimizer.lr in grid
    # One linear layer that starts at zero, and everything else from the checkpoint.
    built = recipe.build(c)
    assert (built.model().pre_logits, built.model().zero_head, built.model().head_bias_init) == (False, True, 0)
    assert built.init_from.reset == ("^head/", "^pre_logits/")
    assert (c.objective.cross_entropy, c.paper.core_days) == ("softmax", None)


@pytest.mark.parametrize("dataset", DATA_SETS)
def test_held_out_examples_are_those_that_training_leaves_out(dataset):
    share = TABLE_4[dataset.partition("/")[0]][2]
    whole = config_files.load(f"vit_finetune:{dataset}")
    if share is None:
        with pytest.raises(UserError, match="VTAB has one rate"):
            config_files.load(f"vit_finetune:{dataset},held_out=true")
        return
    part = config_files.load(f"vit_finetune:{dataset},held_out=true")
    val = part.evaluators.val.data
    assert part.data.num_examples + val.num_examples == whole.data.num_examples
    assert val.num_examples == pytest.approx(share * whole.data.num_examples, abs=1)
    for kept, out in zip(part.data.source.split.split("+"), val.source.split.split("+")):
        assert kept.replace("[:", "[").replace("]", ":]") == out  # train[:9] and train[9:]
    assert dict(part.paper.expected) == {}


@pytest.mark.parametrize(
    ("variant", "size", "top1"),
    [
        ("imagenet2012,table2=true", 512, 85.30),
        ("imagenet2012,pretrained=jft,table2=true", 512, 87.76),
        ("imagenet2012,model=H/14,pretrained=jft,table2=true", 518, 88.55),
    ],
)
def test_the_imagenet_rows_of_table_2(variant, size, top1):
    c = config_files.load(f"vit_finetune:{variant}")
    assert (c.data.image_size, c.optimizer.ema) == (size, 0.9999)
    assert dict(c.paper.expected) == {"top-1, Table 2": top1}
    assert recipe.build(c).total_steps == 20_000


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("imagenet2012,model=B/16", {"top-1, Table 5": 83.97}),
        ("cifar100,pretrained=jft", {"top-1, Table 5": 94.04, "top-1, Table 2": 93.90}),
        ("oxford_flowers102,model=L/32,pretrained=i1k", {"top-1, Table 5": 86.36}),
        ("oxford_iiit_pet,model=H/14,pretrained=jft", {"top-1, Table 5": 97.56, "top-1, Table 2": 97.56}),
        ("vtab/dtd,pretrained=jft", {"mean top-1 of 19 tasks, Table 2": 76.28}),
        ("vtab/dtd,model=B/16", {}),
        ("cifar10,model=S/16", {}),
        ("cifar10,size=224", {}),
    ],
)
def test_fine_tuning_expects_what_the_paper_prints(variant, expected):
    assert dict(config_files.load(f"vit_finetune:{variant}").paper.expected) == expected


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("imagnet2012", 'unknown name "imagnet2012". Did you mean "imagenet2012"'),
        ("vtab/clevr", 'unknown name "vtab/clevr"'),
        ("cifar10,pretraind=jft", 'unknown key "pretraind". Did you mean "pretrained"'),
        ("cifar10,pretrained=i22k", 'unknown name "i22k". Did you mean "i21k"'),
        ("cifar10,held_out=1%", "held_out: expected true or false"),
        ("cifar10,table2=true", "table2 has no row of cifar10 with ViT-L/16 from ImageNet-21k"),
        ("imagenet2012,model=B/16,table2=true", "table2 has no row"),
        ("cifar10,model=H/14,size=384", "384x384 px do not divide into patches of 14x14"),
    ],
)
def test_a_wrong_fine_tuning_variant_says_how_to_mend_it(variant, message):
    with pytest.raises(UserError, match=message):
        recipe.load(f"vit_finetune:{variant}")


SMALL = [
    *(f"--config.model.{k}" for k in ("width=32", "depth=1", "mlp_dim=64", "num_heads=2", "patch_size=8")),
    *(
        f"--config.data.{k}"
        for k in ("num_examples=16", "num_classes=4", "batch_size=8", "source={'kind': 'synthetic'}")
    ),
    *("--config.data.ops=()", "--config.evaluators=None", "--config.duration.steps=1"),
]


def test_fine_tuning_starts_from_a_pre_training_of_the_paper(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    arguments = ["--config", "vit_i21k:B/32", "--workdir", str(before), *SMALL, "--config.data.image_size=16"]
    assert main(["train", *arguments]) == 0
    arguments = ["--config", "vit_finetune:cifar10,model=B/32", "--workdir", str(after), *SMALL]
    arguments += ["--config.data.image_size=32", f"--config.init_from.checkpoint={before}"]
    assert main(["train", *arguments]) == 0
    told = json.loads((after / "warm_start.json").read_text())
    assert told["resampled"] == ["pos_embedding [1, 5, 32] -> [1, 17, 32]"]
    assert {line.split()[0] for line in told["reset"]} == {"head/bias", "head/kernel"}
    assert {line.split()[0] for line in told["ignored"]} == {"pre_logits/bias", "pre_logits/kernel"}
    assert len(told["placed"]) == 21


def test_every_recipe_takes_the_usual_overrides():
    for name, variant in EACH_FILE:
        overrides = ["steps=60"], ["steps=7"], ["steps=1"]
        keys = ("duration", "checkpoint.every", "log.every")
        arguments = [f"--config.{k}.{o[0]}" for k, o in zip(keys, overrides)] + ["--config.data.batch_size=256"]
        built = recipe.load(f"{name}:{variant}", arguments)
        assert (built.total_steps, built.data.batch_size) == (60, 256)
        assert built.every(built.checkpoint.every, "checkpoint.every") == 7


# BiT, written down here once more: epochs, milestones in epochs, images, classes.
BIT = {
    "bit_i1k": (90, (30, 60, 80), 1_281_167, 1_000),
    "bit_i21k": (90, (30, 60, 80), 12_400_000, 21_843),
    "bit_jft": (40, (10, 23, 30, 37), 303_000_000, 18_291),
}


@pytest.mark.parametrize("name", BIT)
def test_bit_pre_training_presets(name):
    epochs, milestones, num_examples, num_classes = BIT[name]
    c = config_files.load(f"{name}:R152x4")
    assert (c.model.blocks, c.model.width_factor, c.duration.to_dict()) == ((3, 8, 36, 3), 4, {"epochs": epochs})
    assert (c.data.batch_size, c.data.num_examples, c.data.num_classes) == (4096, num_examples, num_classes)
    assert (c.optimizer.kind, c.optimizer.lr, c.optimizer.momentum) == ("sgd", 0.48, 0.9)
    assert (c.optimizer.weight_decay, c.optimizer.weight_decay_scale) == (1e-4, "gradient")
    assert tuple(m["epochs"] for m in c.schedule.milestones) == milestones
    half = config_files.load(f"{name}:R50x1,epochs={epochs // 2}")
    assert tuple(m["epochs"] for m in half.schedule.milestones) == tuple(m / 2 for m in milestones)
    assert dict(half.paper.expected) == {}
    built = recipe.load(f"{name}:R50x1")
    rate, an_epoch = built.learning_rate, num_examples / 4096
    assert rate(2_500) == pytest.approx(0.24)
    for k, at in enumerate(milestones):
        assert float(rate(round(at * an_epoch) - 2)) == pytest.approx(0.48 * 0.1**k, rel=1e-5)
        assert float(rate(round(at * an_epoch) + 2)) == pytest.approx(0.48 * 0.1 ** (k + 1), rel=1e-5)


# The HyperRule: images -> steps, mixup; pixels of the images -> size.
@pytest.mark.parametrize(
    ("dataset", "steps", "mixup", "resized", "size"),
    [
        ("imagenet2012", 20_000, 0.1, 448, 384),
        ("cifar10", 10_000, 0.1, 160, 128),
        ("oxford_iiit_pet", 500, 0.0, 448, 384),
        ("vtab/svhn", 500, 0.0, 160, 128),
        ("vtab/patch_camelyon", 500, 0.0, 448, 384),
    ],
)
def test_bit_fine_tuning_follows_the_hyper_rule(dataset, steps, mixup, resized, size):
    c = config_files.load(f"bit_finetune:{dataset}")
    assert (c.duration.to_dict(), c.objective.mixup, c.data.image_size) == ({"steps": steps}, mixup, size)
    assert c.data.ops[1]["size"] == resized
    assert (c.optimizer.kind, c.optimizer.lr, c.optimizer.momentum, c.optimizer.weight_decay) == ("sgd", 0.003, 0.9, 0)
    assert (c.data.batch_size, [m["fraction"] for m in c.schedule.milestones]) == (512, [0.3, 0.6, 0.9])
    built = recipe.build(c)
    assert (built.model().zero_head, built.init_from.reset) == (True, ("^head/",))
    rates = [float(built.learning_rate(round(at * steps) + 1)) for at in (0.25, 0.35, 0.65, 0.95)]
    assert rates == pytest.approx([3e-3, 3e-4, 3e-5, 3e-6])


# ViT, Table 3, residual networks and hybrids: variant -> base LR, epochs.
BASELINES = {
    **{f"{m},epochs=7": (lr, 7) for m, lr in {"R50x1": 1e-3, "R50x2": 1e-3, "R101x1": 8e-4, "R152x1": 6e-4}.items()},
    **{f"R152x2,epochs={n}": (6e-4, n) for n in (7, 14)},
    **{f"R50+ViT-B/{patch},epochs=7": (8e-4, 7) for patch in (32, 16)},
    "R50+ViT-L/32,epochs=7": (2e-4, 7),
    **{f"R50+ViT-L/16,epochs={n}": (4e-4, n) for n in (7, 14)},
}


def test_the_baselines_of_vit_carry_table_3():
    assert set(config_files.module("vit_jft_baselines").VARIANTS) == set(BASELINES)
    for variant, (lr, epochs) in BASELINES.items():
        c = config_files.load(f"vit_jft_baselines:{variant}")
        assert (c.optimizer.kind, c.optimizer.lr, c.duration.epochs) == ("adamw", lr, epochs)
        assert (c.schedule.kind, c.schedule.warmup.to_dict(), c.optimizer.weight_decay) == (
            "linear",
            {"steps": 10_000},
            0.1,
        )
        assert len(c.paper.expected) == 2
