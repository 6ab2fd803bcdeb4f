import os
import signal

import pytest

from vitax.core.errors import UserError
from vitax.parallel import hosts


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, None),
        ({"JAX_COORDINATOR_ADDRESS": "h", "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
        (
            {"JAX_COORDINATOR_ADDRESS": "h", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"},
            {"coordinator_address": "h:8476", "num_processes": 2, "process_id": 1},
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "h:99", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"},
            {"coordinator_address": "h:99", "num_processes": 2, "process_id": 0},
        ),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, {"coordinator_address": "a:8476"}),
        ({"TPU_WORKER_HOSTNAMES": "a"}, None),
        (
            {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_COORDINATOR_ADDRESS": "m:1"},
            {"coordinator_address": "m:8476"},
        ),
        ({"SLURM_NTASKS": "4"}, {}),
        ({"SLURM_NTASKS": "1"}, None),
    ],
)
def test_environment_says_whether_there_are_more_processes(env, expected):
    assert hosts.distributed_arguments(env) == expected


def test_half_an_environment_is_an_error():
    with pytest.raises(UserError, match="JAX_NUM_PROCESSES set but not JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID"):
        hosts.distributed_arguments({"JAX_NUM_PROCESSES": "2"})


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_asks_to_stop_and_handlers_go_back(number, code):
    before = signal.getsignal(number)
    with hosts.stopping() as stop:
        assert not stop.requested(0)
        os.kill(os.getpid(), number)
        assert stop.requested(1)
        assert stop.exit_code() == code
    assert signal.getsignal(number) == before


def test_agree_alone():
    assert hosts.agree("x", "value") == ["value"]
