"""The account of a run is complete: random histories, and a real one with a kill in it."""

import copy
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.test_resume import digest, finish, recipe_file, start
from vitax.checkpoint.store import read_metadata
from vitax.cost.ledger import PARTS, PROGRESS, Ledger
from vitax.train.clock import PARTS as CLOCK_PARTS

SPAN = st.floats(0, 1e4)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["productive", "data_wait", "evaluation", "checkpoint"]), SPAN),
        st.just(("step", 0.0)),
        st.just(("save", 0.0)),  # the copy in the checkpoint, then the file
        st.just(("save, then die", 0.0)),  # the file does not hear of it
        st.just(("write", 0.0)),
        st.just(("die", 0.0)),
    ),
    max_size=14,
)
STARTS = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["cpu", "TPU v3", "TPU v4"]),
            "devices": st.integers(1, 8),
            "startup": SPAN,
            "compile": SPAN,
            "dies": st.booleans(),  # before it restored anything, after a write
            "events": EVENTS,
            "damaged": st.integers(0, 2),  # newest checkpoints that cannot be used
            "file_gone": st.booleans(),
        }
    ),
    min_size=1,
    max_size=6,
)


class World:
    """What really happened, as a list of spans: a rollback strikes out the end of it."""

    def __init__(self):
        self.progress = []  # (part, seconds) that led to the present step
        self.struck_out = []
        self.rest = []  # (part, seconds)
        self.device_seconds = {}
        self.steps = self.last_step = self.starts = 0

    def knowledge(self):
        return self.steps, sum(self.device_seconds.values())

    def check(self, account):
        spent = dict.fromkeys(PARTS, 0.0)
        for part, s in self.progress + self.rest:
            spent[part] += s
        spent["lost"] = sum(s for _, s in self.struck_out)
        assert account["seconds"] == pytest.approx(spent, abs=1e-6)
        assert sum(account["seconds"].values()) == account["wall_seconds"]  # exactly
        assert all(s >= 0 for s in account["seconds"].values())
        hours = {kind: s / 3600 for kind, s in self.device_seconds.items()}
        assert account["device_hours"] == pytest.approx(hours, abs=1e-9)
        assert (account["starts"], account["last_step"], account["steps"]) == (self.starts, self.last_step, self.steps)
        assert account["rolled_back_steps"] == self.steps - self.last_step
        assert account["model_flops"] == pytest.approx(self.steps * 10 * 3e9)
        assert account["executed_flops"] == pytest.approx(self.steps * 4e10)


class Start:
    """One process: the ledger and the world, told the same."""

    def __init__(self, world, file, kind, devices):
        self.world, self.kind, self.devices = world, kind, devices
        self.ledger = Ledger(kind, devices, 3e9, 10, before=file, executed_flops_per_step=4e10)
        self.seconds, self.steps = dict.fromkeys(CLOCK_PARTS, 0.0), 0
        self.later = world.starts > 0
        world.starts += 1
        world.device_seconds.setdefault(kind, 0.0)

    def spend(self, part, seconds):
        self.seconds[part] += seconds
        self.world.device_seconds[self.kind] += seconds * self.devices
        name = "restart" if part == "startup" and self.later else part
        (self.world.progress if part in PROGRESS else self.world.rest).append((name, seconds))

    def step(self):
        self.steps += 1
        self.world.steps += 1
        self.world.last_step += 1

    def account(self):
        got = json.loads(json.dumps(self.ledger.read(self.seconds, self.steps)))
        self.world.check(got)
        return got, copy.deepcopy(self.world)


@settings(max_examples=200, deadline=None)
@given(STARTS)
def test_parts_add_up_whatever_happens(starts):
    file, file_world, saves = {}, World(), []  # saves: (step, length of the progress, account, world)
    for plan in starts:
        if plan["file_gone"]:
            file, file_world = {}, World()
        saves = saves[: len(saves) - plan["damaged"]]
        if plan["dies"]:
            one = Start(copy.deepcopy(file_world), file, plan["kind"], plan["devices"])
            one.spend("startup", plan["startup"])
            file, file_world = one.account()
            continue
        at, length, saved, saved_world = saves[-1] if saves else (0, 0, None, World())
        world = copy.deepcopy(max(file_world, saved_world, key=World.knowledge))
        world.struck_out += world.progress[length:]
        world.progress, world.last_step = world.progress[:length], at
        one = Start(world, file, plan["kind"], plan["devices"])
        one.ledger.restored(at, saved)
        one.spend("startup", plan["startup"])
        one.spend("compile", plan["compile"])
        for name, seconds in [*plan["events"], ("write", 0.0)]:
            if name == "die":
                break
            if name == "step":
                one.step()
            elif name.startswith("save"):
                saves = [s for s in saves if s[0] < world.last_step]
                saves.append((world.last_step, len(world.progress), *one.account()))
            elif name != "write":
                one.spend(name, seconds)
            if name in ("save", "write"):
                file, file_world = one.account()
            if name == "save, then die":
                break


def newest(workdir):
    steps = [int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit()]
    return max(steps, default=0)


def test_a_killed_run_books_what_it_lost(tmp_path):
    """kill -9 between two checkpoints: the next start knows how far the dead one had come."""
    recipe, workdir = recipe_file(tmp_path), tmp_path / "run"
    more = ("--config.duration.steps=100000", "--config.checkpoint.every.steps=500", "--config.log.every.steps=100")
    path = workdir / "ledger.json"
    begun = time.monotonic()
    process = start(recipe, workdir, *more, "--config.schedule.kind=constant")
    died = {"last_step": 0}
    try:
        # Between two saves, so that it was not a save that wrote the file.
        while not (0 < newest(workdir) < died["last_step"] and died["last_step"] % 500):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() - begun < 240
            time.sleep(0.05)
            died = json.loads(path.read_text()) if path.exists() else died
    finally:
        process.kill()
        process.communicate()
    elapsed = time.monotonic() - begun
    died, kept = json.loads(path.read_text()), newest(workdir)
    assert died["seconds"]["lost"] == died["seconds"]["restart"] == 0
    assert 0 < died["wall_seconds"] <= elapsed

    begun = time.monotonic()
    more = (f"--config.duration.steps={kept + 20}", *more[1:])
    code, output = finish(start(recipe, workdir, *more, "--config.schedule.kind=constant"))
    elapsed += time.monotonic() - begun
    assert code == 0, output
    assert digest(output)[1] == str(kept + 20)
    got = json.loads(path.read_text())
    seconds = got["seconds"]
    assert sum(seconds.values()) == got["wall_seconds"] <= elapsed
    assert min(seconds[p] for p in PARTS if p != "evaluation") > 0
    assert got["starts"] == 2
    assert got["last_step"] == kept + 20
    assert got["rolled_back_steps"] == died["last_step"] - kept > 0
    assert got["steps"] == died["last_step"] + 20
    assert seconds["startup"] == died["seconds"]["startup"]
    # Lost is what the dead start had spent on steps after the checkpoint, and no more.
    held = read_metadata(workdir / "checkpoints", kept)[0]["ledger"]
    assert seconds["lost"] == pytest.approx(sum(died["seconds"][p] - held["seconds"][p] for p in PROGRESS))
    lines = output.splitlines()
    assert lines[-1].startswith("state digest=")
    assert lines[-2].startswith("cost: "), output
