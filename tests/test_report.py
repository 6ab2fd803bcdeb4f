"""The report: its figures, what they are made of, and the page in a browser."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from vitax.__main__ import main
from vitax.report import curves, errors, page

SECTIONS = [
    *("Loss and accuracy", "Throughput", "Ledger", "A training batch as the model sees it", "Confusion matrix: val"),
    *("Accuracy by class: val", "Most confident errors: val", "Reliability: val", "Attention", "Attention distance"),
    *("Patch filters", "Position embeddings", "Versions", "Recipe"),
]
FIGURES = "curves throughput batch confusion_val confusions_val classes_val errors_val reliability_val"
FIGURES += " attention attention_distance filters positions"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for name, lr in (("one", 1e-3), ("two", 3e-3)):
        short = ["--config.duration.steps=12", "--config.log.every.steps=4", f"--config.optimizer.lr={lr}"]
        short += [
            "--config.optimizer.ema=0.9",
            "--config.evaluators.val.every.steps=6",
            "--config.schedule.warmup.steps=2",
        ]
        assert main(["train", "--config", "quickstart:pretrain", "--workdir", str(root / name), *short]) == 0
    return root


def test_the_page_has_every_section_and_needs_no_network(runs):
    text = (runs / "one" / "report.html").read_text()
    assert re.findall(r'<h2 id="s\d+">([^<]*)', text) == SECTIONS
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert len(text) < 5_000_000
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    averages = text.split("averaged (EMA)</th>")[1].split("</table>")[0]
    assert re.findall(r"<tr><td>([^<]*)", averages) == ["val/accuracy", "val/loss", "val/top5_accuracy"]


def test_every_figure_lies_beside_it_as_png(runs):
    found = {p.stem for p in (runs / "one" / "report").glob("*.png")}
    assert found == set(FIGURES.split())


def test_runs_compared_say_what_differs(runs, tmp_path, capsys):
    out = tmp_path / "both.html"
    assert main(["report", "--workdir", str(runs / "one"), str(runs / "two"), "--output", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    text = out.read_text()
    assert "Ledger: one" in text
    assert "Ledger: two" in text
    differs = text.split("What differs in the recipes</h2>")[1]
    assert "<td>optimizer.lr</td><td>0.001</td><td>0.003</td>" in differs
    assert "data.batch_size" not in differs


def test_folders_of_one_name_are_told_apart(runs, tmp_path):
    (tmp_path / "one").mkdir()
    shutil.copy(runs / "one" / "recipe.json", tmp_path / "one")
    out = tmp_path / "both.html"
    assert main(["report", "--workdir", str(runs / "one"), str(tmp_path / "one"), "--output", str(out)]) == 0
    assert str(tmp_path / "one") in out.read_text()


def test_the_page_in_a_browser(runs, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    probe = """<script>
      const images = [...document.images], shown = images.filter(i => i.complete && i.naturalWidth > 40).length;
      document.body.dataset.probe = [images.length, shown, document.documentElement.scrollWidth, innerWidth].join(",");
    </script></body>"""
    copy = tmp_path / "page.html"
    copy.write_text((runs / "one" / "report.html").read_text().replace("</body>", probe))
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
    for width in (1100, 500):
        command = [browser, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"]
        done = subprocess.run(
            [*command, "--virtual-time-budget=5000", "--dump-dom", copy.as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        images, shown, scroll, inner = map(int, re.search(r'data-probe="([\d,]+)"', done.stdout)[1].split(","))
        assert images == shown == len(FIGURES.split())
        assert scroll <= inner + 1, f"scrolls sideways at {width} px"


def test_calibration_by_hand():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, True, True, False, True, False])
    said, was, share, error = errors.calibration(confidence, correct, bins=10)
    np.testing.assert_allclose(said[[5, 9]], [0.55, 0.95])
    np.testing.assert_allclose(was[[5, 9]], [0.5, 0.75])
    assert np.isnan(said[0])
    assert share.sum() == 1
    assert error == pytest.approx(4 / 6 * 0.20 + 2 / 6 * 0.05)


def test_calibration_of_certainty():
    assert errors.calibration(np.ones(4), np.ones(4, bool))[3] == 0.0


def test_series_skip_rows_without_the_name():
    rows = [{"step": 1, "a": 1.0}, {"step": 2, "b": 2.0}, {"step": 3, "a": 3.0}]
    assert curves.series(rows, "a") == ([1, 3], [1.0, 3.0])
    assert curves.last(rows, "a") == 3.0
    assert curves.last(rows, "c") is None


def test_text_is_escaped():
    assert "<b>" not in page.rows({"<b>": "<b>"}) + page.table(["<b>"], [["<b>"]])
