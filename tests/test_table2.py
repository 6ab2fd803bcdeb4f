"""``vitax table2``: the print, and runs where they belong."""

import json

import pytest

from vitax import config_files, paper, table2
from vitax.__main__ import main
from vitax.core.errors import UserError
from vitax.cost import vit_paper
from vitax.train.workdir import write_json


def put(folder, spec, rows, core_days=None):
    """A workdir of a recipe as a run leaves it."""
    folder.mkdir(parents=True)
    write_json(folder / "recipe.json", config_files.load(spec).to_dict())
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if core_days:
        write_json(folder / "ledger.json", {"tpu_v3_core_days": core_days, "tpu_v3_core_days_source": "measured"})


@pytest.fixture
def runs(tmp_path):
    for seed, accuracy in enumerate((0.98, 0.99, 1.0)):
        spec = "vit_finetune:cifar10,model=H/14,pretrained=jft"
        put(
            tmp_path / f"c10-{seed}",
            spec,
            [{"step": 5_000, "val/accuracy": 0.5}, {"step": 10_000, "val/accuracy": accuracy}],
        )
    last = {"step": 20_000, "val/accuracy": 0.8, "val/ema/accuracy": 0.85, "real/ema/accuracy": 0.9}
    put(tmp_path / "deep" / "er", "vit_finetune:imagenet2012,pretrained=jft,table2=true", [last])
    put(tmp_path / "v1", "vit_finetune:vtab/dtd,pretrained=jft", [{"step": 2_500, "val/accuracy": 0.7}])
    put(tmp_path / "v2", "vit_finetune:vtab/svhn,pretrained=jft", [{"step": 100, "val/accuracy": 0.9}])
    # Another size than printed: belongs nowhere.
    put(tmp_path / "x", "vit_finetune:cifar100,pretrained=jft,size=224", [{"step": 10_000, "val/accuracy": 0.1}])
    put(tmp_path / "pre", "vit_jft:L/16", [{"step": round(14 * 303e6 / 4096)}], core_days=612.5)
    put(tmp_path / "broken_off", "vit_jft:H/14", [{"step": 1000}], core_days=3.0)
    put(tmp_path / "short", "vit_jft:L/16,epochs=3", [], core_days=1.0)
    return tmp_path


def test_the_print_and_the_plan():
    columns = table2.table()
    assert [(c["model"], c["core_days"]["paper"]) for c in columns] == [
        (c.model, c.core_days) for c in vit_paper.TABLE_2
    ]
    assert columns[0]["accuracy"]["vtab"] == {"paper": {"mean": 77.63, "std": 0.23}, "measured": None}
    # 1567.2 exaFLOPs at 40% of 61.5 TFLOP/s.
    assert columns[1]["core_days"]["planned"] == pytest.approx(1567.2e18 / (0.4 * 61.5e12 * 86400), rel=1e-3)


def test_runs_fill_their_cells(runs):
    h14, l16, i21k, *_ = table2.table([runs])
    assert h14["accuracy"]["cifar10"]["measured"] == {
        "mean": pytest.approx(99.0), "std": pytest.approx(1.0), "runs": 3, "unfinished": 0,
    }  # fmt: skip
    own = {name: cell["measured"] for name, cell in l16["accuracy"].items() if cell["measured"]}
    assert own["imagenet2012"]["mean"] == pytest.approx(85)  # averaged parameters
    assert own["imagenet2012_real"]["mean"] == pytest.approx(90)
    assert own["vtab"] == {"mean": pytest.approx(80), "std": None, "runs": 2, "unfinished": 1, "tasks": 2}
    assert set(own) == {"imagenet2012", "imagenet2012_real", "vtab"}
    whole = {"core_days": 612.5, "source": "measured", "unfinished": False}
    assert l16["core_days"]["measured"] == whole
    assert h14["core_days"]["measured"]["unfinished"]
    assert not any(cell["measured"] for cell in i21k["accuracy"].values())


def test_the_command(runs, capsys):
    assert main(["table2", "--json", str(runs)]) == 0
    assert [c["model"] for c in json.loads(capsys.readouterr().out)][:2] == ["ViT-H/14", "ViT-L/16"]
    assert main(["table2", str(runs)]) == 0
    text = capsys.readouterr().out
    for words in (
        "88.55 ± 0.04",
        "(99.00 ± 1.00)",
        "(80.00, 2 of 19 tasks, unfinished)",
        "(612)",
        "(3, unfinished)",
        "12,300",
    ):
        assert words in text
    with pytest.raises(UserError, match="no folder"):
        table2.table([runs / "none"])


def test_every_column_of_vit_has_a_recipe():
    cells = set()
    for column in vit_paper.TABLE_2[:3]:
        size, data = column.model.removeprefix("ViT-"), {"JFT-300M": "jft", "ImageNet-21k": "i21k"}[column.pretraining]
        for name in paper.HEADINGS:
            if name == "imagenet2012_real":
                continue
            dataset = {"imagenet2012": "imagenet2012,table2=true", "vtab": "vtab/dtd"}.get(name, name)
            place = config_files.load(f"vit_finetune:{dataset},model={size},pretrained={data}").paper.table2
            assert (place.model, place.pretraining, place.cell) == (column.model, column.pretraining, name)
            cells.add(tuple(place.values()))
        place = config_files.load(f"vit_{data}:{size}").paper.table2
        assert (place.model, place.pretraining, place.cell) == (column.model, column.pretraining, "core_days")
    assert len(cells) == 18


def test_the_rivals_have_recipes():
    bit, student = vit_paper.TABLE_2[3:]
    for spec, column, cell in (
        ("bit_jft:R152x4", bit, "core_days"),
        ("bit_finetune:imagenet2012,size=R152x4,pretrained=jft", bit, "imagenet2012"),
        ("bit_finetune:vtab/dtd,size=R152x4,pretrained=jft", bit, "vtab"),
        ("noisy_student:L2,iteration=3", student, "core_days"),
        ("noisy_student:L2,iteration=3,tune=true", student, "imagenet2012"),
    ):
        place = config_files.load(spec).paper.table2
        assert (place.model, place.pretraining, place.cell) == (column.model, column.pretraining, cell)


def test_noisy_student_states_the_papers_settings():
    for iteration, (batch, top1) in {1: (2048 * 15, 87.6), 2: (2048 * 15, 88.1), 3: (2048 * 29, 88.4)}.items():
        c = config_files.load(f"noisy_student:L2,iteration={iteration}")
        assert (c.data.batch_size, c.data.image_size, c.duration.steps) == (batch, 475, round(350 * 1_281_167 / 2048))
        assert (c.optimizer.lr, c.schedule.factor, c.model.dropout, c.model.stochastic_depth) == (0.128, 0.97, 0.5, 0.2)
        pseudo = c.data.source.sources.pseudo
        assert (pseudo.min_confidence, pseudo.per_class) == (0.3, 130_000)
        before = "B7" if iteration == 1 else f"L2-{iteration - 1}"
        assert pseudo.labels == f"runs/noisy_student/{before}_labels"
        # Passes over ImageNet in one over the 130M: close to what the paper draws.
        ratio = 130e6 / (c.data.source.repeats.labelled * 1_281_167)
        assert ratio == pytest.approx(batch / 2048 - 1, rel=0.1)
        tuned = config_files.load(f"noisy_student:L2,iteration={iteration},tune=true")
        assert (tuned.data.image_size, tuned.paper.expected["imagenet top-1"]) == (800, top1)
    with pytest.raises(UserError, match="expected 1, 2 or 3"):
        config_files.load("noisy_student:L2,iteration=4")
