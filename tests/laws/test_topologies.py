"""One device, eight devices, two processes: the same run."""

import pytest

from tests.laws.test_resume import finish, recipe_file, rows, train, two_processes

STEPS = ("--config.duration.steps=20",)


def losses(workdir):
    return [row["train/loss"] for row in rows(workdir) if "train/loss" in row]


def test_losses_over_20_steps_agree_to_1e_5(tmp_path):
    recipe = recipe_file(tmp_path)
    code, output = train(recipe, tmp_path / "one", *STEPS)
    assert code == 0, output
    mesh = ("--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.mesh.tensor=2")
    code, output = train(recipe, tmp_path / "eight", *STEPS, *mesh, devices=8)
    assert code == 0, output
    results = [finish(p) for p in two_processes(recipe, tmp_path / "two", *STEPS)]
    assert [code for code, _ in results] == [0, 0], results
    one, eight, two = (losses(tmp_path / name) for name in ("one", "eight", "two"))
    assert len(one) == 20
    for name, other in (("8 devices", eight), ("2 processes", two)):
        worst = max(abs(a - b) / abs(a) for a, b in zip(one, other, strict=True))
        print(f"{name}: largest relative difference of the loss over 20 steps {worst:.2e}")
        assert other == pytest.approx(one, rel=1e-5), name
