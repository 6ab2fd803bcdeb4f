"""``vitax cost --paper``: tables 6 and 2 of ViT, as fixed interface and as read by a person."""

import json
import subprocess
import sys

import pytest

from vitax import paper
from vitax.__main__ import main
from vitax.cost import vit_paper


@pytest.fixture(scope="module")
def tables():
    return paper.tables()


def test_table_6_agrees_with_the_print(tables):
    rows = {(r["model"], r["epochs"]): r for r in tables["table6"]}
    assert list(rows) == [key for key in vit_paper.TABLE_6 if key[0].startswith("ViT-")]
    for (model, _), row in rows.items():
        assert abs(row["deviation"]) <= (0.025 if model == "ViT-B/32" else 0.005), row
        assert row["deviation"] == row["exaflops"] / row["paper_exaflops"] - 1
        assert (row["explanation"] is not None) == (abs(row["deviation"]) > 0.005)
    # Counted outside this repository by the same convention.
    for key, want in {("ViT-B/32", 7): 56.3, ("ViT-L/32", 7): 195.9, ("ViT-H/14", 14): 4258.6}.items():
        assert rows[key]["exaflops"] == pytest.approx(want, abs=0.05)


def test_table_2_implies_the_efficiency(tables):
    h14, l16, l16_i21k, bit, student = tables["table2"]
    assert [r["core_days"] for r in tables["table2"]] == [2500, 680, 230, 9900, 12300]
    assert (h14["tflops_per_core"], l16["tflops_per_core"]) == pytest.approx((19.7, 26.7), abs=0.05)
    assert (h14["mfu"], l16["mfu"], l16_i21k["mfu"]) == pytest.approx((0.32, 0.43, 0.34), abs=0.005)
    assert l16["exaflops"] == next(r["exaflops"] for r in tables["table6"] if r["epochs"] == 14)
    assert l16["expected"]["imagenet2012"] == {"mean": 87.76, "std": 0.03}
    for row in (bit, student):
        assert (row["exaflops"], row["tflops_per_core"], row["mfu"]) == (None, None, None)
        assert "vitax has no" in row["note"]


def test_a_large_deviation_says_why_or_that_it_is_not_known(monkeypatch):
    monkeypatch.setattr(paper, "EXPLANATIONS", {})
    rows = {(r["model"], r["epochs"]): r["explanation"] for r in paper.tables()["table6"]}
    assert rows["ViT-B/32", 7] == "not known"
    assert rows["ViT-B/16", 7] is None


def test_the_command(capsys, tables):
    assert main(["cost", "--paper", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == tables
    assert main(["cost", "--paper"]) == 0
    text = capsys.readouterr().out
    for words in ("ViT-B/32        7      55     56.3     +2.34%", "Not counted", "12,300", "43%", "88.55"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 115


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither of --workdir and --paper given; expected one"),
        (["--paper", "--workdir", "x"], "both of --workdir and --paper given; expected one"),
        (["--papr"], 'Unknown argument --papr. Did you mean "--paper"'),
    ],
)
def test_exactly_one_question(arguments, message, capsys):
    assert main(["cost", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_no_device_is_touched():
    script = (
        "from vitax.__main__ import main; assert main(['cost', '--paper', '--json']) == 0; "
        "from jax._src import xla_bridge; assert not xla_bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
