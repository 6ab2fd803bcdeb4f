"""Processes: starting ``jax.distributed``, bounded agreement, and stopping together."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax

from vitax.core.errors import EXIT_INTERRUPTED, EXIT_RESTART, UserError

# JAX moved its default from 8476 to 8482, which the default firewall of cloud TPU
# networks blocks (jax#35905): name the port.
COORDINATOR_PORT = 8476
INITIALIZE_SECONDS = 300
HEARTBEAT_SECONDS = 100


def distributed_arguments(env: Mapping[str, str]) -> dict[str, Any] | None:
    """Arguments for ``jax.distributed.initialize`` where ``env`` shows several processes.

    Understands JAX's own variables (``JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES,
    JAX_PROCESS_ID``), TPU pods and multi-slice, Slurm and Open MPI.

    Returns:
      Keyword arguments, or None for a single process.

    Raises:
      UserError: some of JAX's own variables are set and others are missing.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    given = [n for n in names if env.get(n)]
    if given:
        missing = [n for n in names if n not in given]
        if missing:
            raise UserError(f"{', '.join(given)} set but not {', '.join(missing)}: set all three, or none.")
        count = int(env["JAX_NUM_PROCESSES"])
        if count == 1:
            return None
        address = env["JAX_COORDINATOR_ADDRESS"]
        address = address if ":" in address else f"{address}:{COORDINATOR_PORT}"
        return {
            "coordinator_address": address,
            "num_processes": count,
            "process_id": int(env["JAX_PROCESS_ID"]),
        }
    if int(env.get("MEGASCALE_NUM_SLICES") or 1) > 1:
        host = env["MEGASCALE_COORDINATOR_ADDRESS"].split(":")[0]
        return {"coordinator_address": f"{host}:{COORDINATOR_PORT}"}
    workers = [w for w in env.get("TPU_WORKER_HOSTNAMES", "").split(",") if w]
    if len(workers) > 1:
        return {"coordinator_address": f"{workers[0]}:{COORDINATOR_PORT}"}
    if int(env.get("SLURM_NTASKS") or 1) > 1 or int(env.get("OMPI_COMM_WORLD_SIZE") or 1) > 1:
        return {}  # JAX detects these itself
    return None


def start_distributed(env: Mapping[str, str] | None = None) -> bool:
    """Starts ``jax.distributed`` where the environment shows more than one process.

    Must run before the first device is touched. Returns whether it is running.
    """
    if jax.distributed.is_initialized():
        return True
    arguments = distributed_arguments(os.environ if env is None else env)
    if arguments is None:
        return False
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=INITIALIZE_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except RuntimeError as error:
        raise UserError(
            f"Could not join the other processes at {arguments.get('coordinator_address', 'the detected address')} "
            f"within {INITIALIZE_SECONDS} s: {error}. Check that every process runs and that the port is open."
        ) from error
    return True


def _client() -> Any:
    # The key-value store of the coordination service: private in JAX, and the only
    # barrier with a timeout. Nothing else in vitax touches it.
    from jax._src import distributed

    return distributed.global_state.client


_rounds: dict[str, int] = {}


def agree(tag: str, value: str, timeout_seconds: float = 120.0) -> list[str]:
    """Every process gives a short string and gets everybody's, in process order.

    Bounded in time, and safe where processes differ in what they hold, unlike a
    collective. All processes must call it in the same order for each tag.

    Raises:
      RuntimeError: a process did not answer in time.
    """
    if jax.process_count() == 1:
        return [value]
    _rounds[tag] = _rounds.get(tag, 0) + 1
    key = f"vitax/{tag}/{_rounds[tag]}"
    client = _client()
    client.key_value_set(f"{key}/{jax.process_index()}", value or " ")
    values = []
    for process in range(jax.process_count()):
        try:
            values.append(client.blocking_key_value_get(f"{key}/{process}", int(timeout_seconds * 1000)).strip())
        except Exception as error:
            raise RuntimeError(f"Process {process} did not answer '{tag}' within {timeout_seconds:.0f} s.") from error
    return values


class Stop:
    """Notices SIGTERM and Ctrl-C, on one process or on several.

    Alone, a handler sets a flag. With ``jax.distributed`` JAX owns SIGTERM: its
    synchronisation point lets every process stop at the same step, and a handler of
    ours would hide the signal from it; there Ctrl-C is passed on as SIGTERM.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._synchronised = jax.distributed.is_initialized()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
        print("\nStopping after this step: saving ...", file=sys.stderr, flush=True)
        if self._synchronised:
            os.kill(os.getpid(), signal.SIGTERM)

    def requested(self, step: int) -> bool:
        """Whether to stop before step ``step``; every process must ask at every step."""
        if self._synchronised:
            from jax.experimental import multihost_utils

            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self.signal is not None

    def exit_code(self) -> int:
        """75 for SIGTERM and preemption, 130 for Ctrl-C on any process."""
        mine = "interrupt" if self.signal == signal.SIGINT else "terminate"
        return EXIT_INTERRUPTED if "interrupt" in agree("stop", mine) else EXIT_RESTART


@contextmanager
def stopping() -> Iterator[Stop]:
    """Installs the handlers of a ``Stop`` for the time of the context."""
    stop = Stop()
    numbers = [signal.SIGINT] if stop._synchronised else [signal.SIGINT, signal.SIGTERM]
    try:
        before = {n: signal.signal(n, stop._on_signal) for n in numbers}
    except ValueError:  # not the main thread (a notebook's worker): signals go elsewhere
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
