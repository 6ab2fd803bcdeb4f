"""The loop: build, restore or start, step; log, then evaluate, then save.

A checkpoint at step s means that all that was due up to s is done. Preemption
wraps the loop as a context; features go into the program, the pipeline or an
evaluator, not in here.
"""

import collections
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol

import jax

from vitax.checkpoint import digest
from vitax.checkpoint.store import Store
from vitax.core import metrics
from vitax.core.durations import due
from vitax.core.errors import EXIT_DONE, RunError
from vitax.core.ramp import Ramp
from vitax.core.types import Evaluator, TrainState
from vitax.cost.ledger import Ledger
from vitax.parallel import hosts
from vitax.train import terminal
from vitax.train.account import Account
from vitax.train.clock import Clock
from vitax.train.program import Program
from vitax.train.workdir import MetricsLog, read_json

# The host runs at most this many steps ahead of the device: enough to hide its own
# work, little enough that waiting for data is not mistaken for waiting for a step.
_AHEAD = 2


class Batches(Protocol):
    """What the loop needs of a pipeline."""

    def iterate(self, start: int) -> Iterator[Mapping[str, Any]]: ...


@dataclasses.dataclass
class Run:
    """A run: everything the loop touches.

    Attributes:
      program: the step.
      pipeline: batch number -> batch.
      workdir: where everything is left.
      total_steps: the length.
      log_every, checkpoint_every: in steps (see ``core.durations.due``).
      keep: how many checkpoints stay.
      evaluators: (evaluator, every so many steps).
      start: makes the state of a fresh run (initialisation, warm start).
      metadata: plain data to keep in every checkpoint (recipe, data fingerprint).
      model_flops_per_example, chip, paper, ramp: for the ledger (see ``cost.ledger.Ledger``).
      check_resume: raises where a checkpoint's metadata is of another run.
    """

    program: Program
    pipeline: Batches
    workdir: Path
    total_steps: int
    log_every: float
    checkpoint_every: float
    keep: int
    evaluators: Sequence[tuple[Evaluator, float]]
    start: Callable[[], TrainState]
    metadata: dict[str, Any]
    model_flops_per_example: float
    chip: Mapping[str, Any]
    paper: Mapping[str, Any] | None
    check_resume: Callable[[dict[str, Any]], None]
    ramp: Ramp | None = None


def train(run: Run, clock: Clock) -> int:
    """Trains to the end, or until told to stop.

    Returns:
      The exit code: 0 done, 75 stopped by SIGTERM or preemption, 130 by Ctrl-C.

    Raises:
      RunError: the loss or the parameters are not finite.
    """
    program, primary = run.program, jax.process_index() == 0
    with ExitStack() as stack:
        stop = stack.enter_context(hosts.stopping())
        account = Account(_ledger(run), run.workdir / "ledger.json", clock, primary)
        stack.enter_context(account)
        store = stack.enter_context(closing(Store(run.workdir / "checkpoints", run.keep)))
        restored = store.restore(program.abstract_state)
        if restored is not None:
            state, metadata, start = restored
            run.check_resume(metadata)
        else:
            state, metadata, start = run.start(), {}, 0
        account.restored(start, metadata)
        bar = stack.enter_context(closing(terminal.Bar(run.total_steps, start, primary)))
        if restored is not None:
            bar.say(f"Resumed at step {start} from {store.directory / str(start)}.")
        log = stack.enter_context(closing(MetricsLog(run.workdir, start, primary)))
        if start < run.total_steps:
            _compile(program, clock, bar)
            account.ledger.executed_flops_per_step = program.executed_flops  # the trace is there already
        evaluate = [(e.name, every, e.build(program)) for e, every in run.evaluators]
        batches = stack.enter_context(closing(run.pipeline.iterate(start)))  # type: ignore[type-var]
        watch = _Watch(run, clock, account, log, bar, start)

        def save(step: int) -> None:
            watch.drain()  # never saves what was not seen to be finite
            with clock.part("checkpoint"):
                log.flush()
                store.save(step, state, {**run.metadata, "ledger": account.read()})
                account.write()

        clock.switch("productive")
        step, code = start, EXIT_DONE
        while step < run.total_steps:
            if stop.requested(step):
                code = stop.exit_code()
                break
            with clock.part("data_wait"):
                batch = program.put(next(batches))
            state, measured = program.step(state, batch)
            step += 1
            watch.push(step, measured)
            now = [(name, fn) for name, every, fn in evaluate if due(step, every) or step == run.total_steps]
            if now:
                watch.drain()
                with clock.part("evaluation"):
                    values = {f"{name}/{k}": v for name, fn in now for k, v in fn(state).items()}
                log.write(step, values)
                bar.note(step, values)
            if due(step, run.checkpoint_every):
                save(step)
        save(step)
        clock.switch("checkpoint")
        store.wait()
        total = digest.combine(digest.manifest(state))
    if primary:
        print(f"state digest={total} step={step}", flush=True)
    return code


def _compile(program: Program, clock: Clock, bar: terminal.Bar) -> None:
    with clock.part("compile"):
        begun = time.perf_counter()
        bar.say("compiling ...")
        _ = program.compiled
        bar.say(f"compiled in {time.perf_counter() - begun:.1f} s")


def _ledger(run: Run) -> Ledger:
    return Ledger(
        device_kind=run.program.mesh.devices.flat[0].device_kind,
        num_devices=run.program.mesh.size,
        model_flops_per_example=run.model_flops_per_example,
        batch_size=next(iter(run.program.batch_spec.values())).shape[0],
        ramp=run.ramp,
        before=read_json(run.workdir / "ledger.json") or {},
        chip=run.chip,
        paper=run.paper,
    )


class _Watch:
    """Follows the device at a distance of a few steps: throttles, checks, logs."""

    def __init__(self, run: Run, clock: Clock, account: Account, log: MetricsLog, bar: terminal.Bar, start: int):
        self._run, self._clock, self._account, self._log, self._bar = run, clock, account, log, bar
        self._pending: collections.deque[tuple[int, dict[str, Any]]] = collections.deque()
        self._mark = (start, *self._spent())

    def _spent(self) -> tuple[float, float]:
        """Seconds of stepping (evaluation and saving left out), and of them waiting for data."""
        seconds = self._clock.read()
        return seconds["productive"] + seconds["data_wait"], seconds["data_wait"]

    def push(self, step: int, measured: dict[str, Any]) -> None:
        self._pending.append((step, measured))
        while len(self._pending) > _AHEAD:
            self._pop()

    def drain(self) -> None:
        while self._pending:
            self._pop()

    def _pop(self) -> None:
        step, measured = self._pending.popleft()
        logged = due(step, self._run.log_every) or step == self._run.total_steps
        names = measured if logged else ("loss", "grad_norm", "param_norm")
        values = metrics.compute({k: measured[k] for k in names})  # waits for this step
        self._bar.advance(step)
        self._account.reached(step)
        for name in ("loss", "grad_norm", "param_norm"):
            if not math.isfinite(values[name]):
                raise RunError(
                    f"Step {step}: {name} is {values[name]}. Nothing of it was saved; the newest checkpoint in "
                    f"{self._run.workdir / 'checkpoints'} is intact. Lower the learning rate, lengthen the warm-up "
                    "or set optimizer.clip_norm, and start in a new workdir."
                )
        if logged:
            self._write(step, values)

    def _write(self, step: int, values: dict[str, float]) -> None:
        scalars = ("lr", "grad_norm", "param_norm")
        row = {name if name in scalars else f"train/{name}": v for name, v in values.items()}
        spent, waited = self._spent()
        last_step, last_spent, last_waited = self._mark
        size = next(iter(self._run.program.batch_spec.values())).shape[0]
        elapsed = max(spent - last_spent, 1e-9)
        row["examples_per_second"] = (step - last_step) * size / elapsed
        row["data_wait_fraction"] = min((waited - last_waited) / elapsed, 1.0)
        self._mark = (step, spent, waited)
        self._log.write(step, row)
        self._bar.note(step, row)
