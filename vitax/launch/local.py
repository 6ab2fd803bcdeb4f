"""Several processes, or fake devices, on this machine: the group starts and ends together."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

from vitax.core.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_RESTART
from vitax.launch import check, files
from vitax.launch.settings import Settings

_POLL_SECONDS = 0.1
# What the others have to end by themselves once one failed: its error may be theirs too.
# JAX would notice a dead peer after its heartbeat alone, 100 s (parallel.hosts).
_SETTLE_SECONDS = 5.0


def launch(settings: Settings) -> int:
    """Runs the processes until they are done; returns the exit code.

    Exit code 75 starts all of them again. One that was killed ends the others and, while
    attempts remain, starts all of them again too. Any other code is returned.
    """
    devices = settings.devices or (1 if settings.processes > 1 else 0)
    if devices:  # else train sees at once which devices there are; to ask for them here would take them
        check.check(settings, settings.processes * devices, platform="cpu")
    command = [sys.executable, "-m", *settings.command]
    if settings.dry_run:
        for environment in environments(settings, devices):
            print(files.words(command, environment))
        return EXIT_DONE
    logs = files.logs(settings, settings.workdir)
    logs.mkdir(parents=True, exist_ok=True)
    return supervise(
        lambda: [(command, environment) for environment in environments(settings, devices)],
        logs,
        grace=settings.grace,
        max_restarts=settings.max_restarts,
    )


def environments(settings: Settings, devices: int) -> list[dict[str, str]]:
    """Variables of each process, on a port that is free now."""
    common = dict(settings.environment)
    if devices:
        common |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    if settings.processes == 1:
        return [common]
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    common |= {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": str(settings.processes)}
    return [common | {"JAX_PROCESS_ID": str(i)} for i in range(settings.processes)]


def supervise(commands: Any, logs: Path, *, grace: float, max_restarts: int) -> int:
    """Starts a group, again where that helps.

    Args:
      commands: makes the (command, variables) of each process, anew for each attempt.
      logs: folder of ``process-N.log``.
      grace: seconds that processes have to save and end.
      max_restarts: after lost processes.

    Returns:
      The exit code of the group.
    """
    lost = 0
    with _Signals() as signals:
        while True:
            group = _Group(commands(), logs, signals)
            code, reason = group.wait(grace)
            if signals.received or code == EXIT_DONE:
                return code
            if code != EXIT_RESTART:
                lost += 1
                if reason == "failed" or lost > max_restarts:
                    left = "" if reason == "failed" else f" and {max_restarts} restart(s) are used up"
                    _say(f"process {group.first} {_how(group.codes[group.first])}{left}; logs in {logs}")
                    return code if reason == "failed" else EXIT_FAILED
                how = _how(group.codes[group.first])
                _say(f"process {group.first} {how}: starting all again ({lost} of {max_restarts})")
            else:
                _say("all saved and want to be started again: starting them")


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"


def _say(line: str) -> None:
    print(f"launch: {line}", file=sys.stderr, flush=True)


class _Signals:
    """Passes Ctrl-C and SIGTERM on to the group; the second time kills it."""

    def __init__(self) -> None:
        self.received = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._pass_on)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.received += 1
        _send(self.processes, number if self.received == 1 else signal.SIGKILL)


def _send(processes: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


class _Group:
    """One attempt."""

    def __init__(self, commands: Sequence[tuple[Sequence[str], Mapping[str, str]]], logs: Path, signals: _Signals):
        self._pumps: list[threading.Thread] = []
        self._files: list[IO[bytes]] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._signals = signals
        self.first = 0
        for number, (command, variables) in enumerate(commands):
            line = files.words(command, variables)
            files.echo(line)
            log = (logs / f"process-{number}.log").open("ab", buffering=0)
            log.write(f"+ {line}\n".encode())
            self._files.append(log)
            shown = number == 0
            process = subprocess.Popen(
                command,
                env={**os.environ, **variables},
                stdout=subprocess.PIPE if shown else log,
                stderr=subprocess.PIPE if shown else log,
                start_new_session=True,  # Ctrl-C comes once, from us, not also from the terminal
            )
            self._processes.append(process)
            signals.processes = self._processes
            if shown:
                for pipe, out in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
                    self._pumps.append(threading.Thread(target=_pump, args=(pipe, out, log), daemon=True))
                    self._pumps[-1].start()
        if signals.received:  # it came between two starts
            _send(self._processes, signal.SIGTERM)

    @property
    def codes(self) -> list[int]:
        """Exit codes, as Python gives them: a killed process has minus its signal. -1000 = runs."""
        return [-1000 if (code := p.poll()) is None else code for p in self._processes]

    def wait(self, grace: float) -> tuple[int, str]:
        """(exit code, "done", "saved", "lost" or "failed") once all have ended."""
        while True:
            codes = self.codes
            ended = [i for i, code in enumerate(codes) if code not in (-1000, EXIT_DONE)]
            if ended or -1000 not in codes:
                break
            time.sleep(_POLL_SECONDS)
        # Where one is killed, others may fail within the same moment: it is the cause.
        killed = [i for i in ended if codes[i] < 0]
        saved = [i for i in ended if codes[i] in (EXIT_RESTART, EXIT_INTERRUPTED)]
        self.first = (killed or [i for i in ended if i not in saved] or saved or [0])[0]
        code = codes[self.first]
        self._end(grace if code in (EXIT_DONE, EXIT_RESTART, EXIT_INTERRUPTED) else min(grace, _SETTLE_SECONDS))
        if code in (EXIT_RESTART, EXIT_DONE):  # one that failed while the others saved is what happened
            codes = self.codes
            failed = [i for i, c in enumerate(codes) if c not in (EXIT_DONE, EXIT_RESTART)]
            if failed:
                self.first, code = failed[0], codes[failed[0]]
        if code == EXIT_DONE:
            return code, "done"
        if code == EXIT_RESTART:
            return code, "saved"
        return (EXIT_FAILED, "lost") if code < 0 else (code, "failed")

    def _end(self, seconds: float) -> None:
        """Waits for the rest, then SIGTERM, then SIGKILL."""
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                _send(self._processes, number)
            until = time.monotonic() + (seconds if number != signal.SIGKILL else 3600)
            while -1000 in self.codes and time.monotonic() < until:
                time.sleep(_POLL_SECONDS)
        for pump in self._pumps:
            pump.join(timeout=10)
        for file in self._files:
            file.close()


def _pump(pipe: IO[bytes], out: Any, log: IO[bytes]) -> None:
    for line in iter(pipe.readline, b""):
        log.write(line)
        out.write(line.decode(errors="replace"))
        out.flush()
