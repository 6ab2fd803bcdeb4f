"""The recipes of BERT carry the numbers of the paper, written down here once more."""

import json

import pytest

from tests import documents
from vitax import config_files, recipe
from vitax.__main__ import main
from vitax.core.errors import UserError

# Width, depth, heads.
SIZES = {"base": (768, 12, 12), "large": (1024, 24, 16)}


@pytest.mark.parametrize("size", SIZES)
def test_the_two_phases_are_one_schedule(size):
    first, second = (recipe.load(f"bert_pretrain:{size},phase={n}") for n in (1, 2))
    assert (first.total_steps, second.total_steps) == (900_000, 100_000)
    assert (first.data.length, second.data.length) == (128, 512)
    assert (first.data.max_predictions, second.data.max_predictions) == (20, 77)
    for built in (first, second):
        m, o = built.config["model"], built.config["optimizer"]
        assert (m["width"], m["depth"], m["num_heads"], m["context"]) == (*SIZES[size], 512)
        assert (m["dropout"], m["attention_dropout"], built.data.batch_size) == (0.1, 0.1, 256)
        assert (o["kind"], o["weight_decay"], o.get("b1", 0.9), o.get("b2", 0.999)) == ("adamw", 0.01, 0.9, 0.999)
        assert (built.data.mask_rate, built.data.next_sentence) == (0.15, True)
        decays = {r.name: r.decays for r in built.optimizer.describe(built.abstract_params)}
        assert decays["embedding/token"]
        assert decays["pooler/kernel"]
        assert not decays["embedding_norm/scale"]
        assert not decays["mlm/bias"]
    assert float(first.learning_rate(5_000)) == pytest.approx(0.5e-4)
    assert float(first.learning_rate(10_000)) == pytest.approx(1e-4, rel=1e-3)
    assert float(second.learning_rate(99_999)) == pytest.approx(1e-4 / 990_000, rel=1e-3)
    assert second.init_from.reset == ()


@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_the_rate_goes_on_where_the_first_phase_ends(optimizer):
    first, second = (recipe.load(f"bert_pretrain:large,phase={n},optimizer={optimizer}") for n in (1, 2))
    end = float(first.learning_rate(first.total_steps))
    assert float(second.learning_rate(0)) == pytest.approx(end, rel=1e-4)
    assert end == pytest.approx({"adamw": 1e-4 * 10 / 99, "lamb": 5e-3 / 8}[optimizer], rel=1e-3)


def test_lamb_takes_large_batches():
    first, second = (recipe.load(f"bert_pretrain:large,phase={n},optimizer=lamb") for n in (1, 2))
    assert first.total_steps + second.total_steps == 15_625
    assert (first.data.batch_size, first.config["optimizer"]["kind"]) == (32_768, "lamb")
    assert max(float(first.learning_rate(n)) for n in (3_124, 3_125, 3_126)) == pytest.approx(5e-3, rel=1e-3)


# Task -> classes, two texts, what Table 1 prints for base and large.
GLUE = {
    "mnli": (3, 84.6, 86.7),
    "qqp": (2, 71.2, 72.1),
    "qnli": (2, 90.5, 92.7),
    "sst2": (2, 93.5, 94.9),
    "cola": (2, 52.1, 60.5),
    "stsb": (1, 85.8, 86.5),
    "mrpc": (2, 88.9, 89.3),
    "rte": (2, 66.4, 70.1),
}


@pytest.mark.parametrize("task", GLUE)
def test_fine_tuning_on_glue(task):
    for model, expected in zip(("base", "large"), GLUE[task][1:]):
        c = config_files.load(f"bert_glue:{task},model={model}")
        assert list(c.paper.expected.values()) == [expected]
        assert (c.data.num_classes, c.data.length, c.data.batch_size) == (GLUE[task][0], 128, 32)
        assert c.duration.to_dict() == {"epochs": 3}
        assert (c.model.width, c.model.depth, c.model.num_heads) == SIZES[model]
    other = config_files.load(f"bert_glue:{task},epochs=4,lr=5e-5")
    assert (dict(other.paper.expected), other.optimizer.lr) == ({}, 5e-5)


def test_fine_tuning_on_questions():
    for variant, expected, settings in (
        ("v1", [80.8, 88.5], (3, 32, None)),
        ("v1,model=large", [84.1, 90.9], (3, 32, None)),
        ("v2,model=large", [78.7, 81.9], (2, 48, 0.0)),
    ):
        c = config_files.load(f"bert_squad:{variant}")
        assert sorted(c.paper.expected.values()) == expected
        assert (c.duration.epochs, c.data.batch_size, c.evaluators.val.null_threshold) == settings
        assert (c.data.length, c.optimizer.lr) == (384, 5e-5)


def test_a_wrong_variant_says_how_to_mend_it():
    with pytest.raises(UserError, match=r'unknown name "mprc". Did you mean "mrpc"'):
        config_files.load("bert_glue:mprc")
    with pytest.raises(UserError, match="bert_pretrain: phase=3; expected 1 or 2"):
        config_files.load("bert_pretrain:base,phase=3")


def test_fine_tuning_on_verses_differs_from_scratch_in_its_start_alone():
    tuned, scratch = (config_files.load(f"bert_bible:{role}").to_dict() for role in ("finetune", "scratch"))
    assert tuned.pop("init_from")
    assert scratch.pop("init_from") is None
    tuned["paper"].pop("row"), scratch["paper"].pop("row")
    assert tuned == scratch


def test_recipes_of_the_embedded_verses_name_no_place_of_this_machine():
    assert not [v for v in config_files.flatten(recipe.load("bert_bible").config).values() if str(v).startswith("/")]


def test_where_bibles_lie_may_change_between_two_starts():
    built = [recipe.load("bert_bible:scratch,data=" + folder) for folder in ("here", "there")]
    assert recipe.resume_differences(built[0].config, built[1]) == []


def test_masks_of_an_evaluation_are_those_of_one_seed_in_every_run():
    for overrides, seed in (((), 0), (("--config.evaluators.val.data.seed=3",), 3)):
        built = recipe.load("bert_bible:pretrain", ["--config.seed=5", *overrides])
        assert recipe.evaluator_data(built.config, "val").seed == seed
        assert built.data.seed is None


def test_batches_of_an_evaluation_do_not_grow():
    ramp = "--config.evaluators.val.data.batch_ramp={'start': 2, 'examples': 400}"
    with pytest.raises(UserError, match=r"evaluators.val.data.batch_ramp: only batches that are trained on grow"):
        recipe.load("bert_bible:pretrain", [ramp])


@pytest.mark.parametrize("role", ["pretrain", "finetune"])
def test_the_embedded_verses_are_as_many_as_stated(role):
    built = recipe.load(f"bert_bible:{role}")
    for source in built.sources.values():
        assert len(source)


TINY = [
    *(f"--config.model.{k}" for k in ("width=16", "depth=1", "mlp_dim=32", "num_heads=2")),
    *("--config.data.batch_size=8", "--config.evaluators=None", "--config.duration.steps=1"),
]


@pytest.mark.slow
def test_fine_tuning_starts_from_a_pre_training(tmp_path, monkeypatch):
    documents.on_one_device(monkeypatch)
    before, after = tmp_path / "before", tmp_path / "after"
    assert main(["train", "--config", "bert_bible:pretrain", "--workdir", str(before), *TINY]) == 0
    arguments = ["--config", "bert_bible:finetune", "--workdir", str(after), *TINY]
    assert main(["train", *arguments, f"--config.init_from.checkpoint={before}"]) == 0
    told = json.loads((after / "warm_start.json").read_text())
    assert {line.split()[0] for line in told["reset"]} == {"head/bias", "head/kernel"}
    ignored = {line.split()[0].partition("/")[0] for line in told["ignored"]}
    assert ignored == {"mlm", "next_sentence"}
    assert any("pooler/kernel" in line for line in told["placed"])
