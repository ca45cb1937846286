"""Functions for `run_job` to run in a child process, each with one way to end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qcrd_core.errors import TrainingError
from qcrd_core.runtime.processes import Emit
from qcrd_core.training.jobs import TrainRound, train_round

_STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def succeed(job: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
    """Report two events, then return the job and what the caller can only learn here."""
    emit({"step": 1})
    emit({"step": 2})
    print("written by the job")  # noqa: T201  (to the log)
    return {**job, "pid": os.getpid(), "variable": os.environ.get("QCRD_TEST_VARIABLE")}


def lose(_job: Mapping[str, Any], _emit: Emit) -> dict[str, Any]:
    """Raise an error of our own."""
    msg = "The loss must stay finite; got nan."
    raise TrainingError(msg)


def crash(job: Mapping[str, Any], _emit: Emit) -> dict[str, Any]:
    """Raise a foreign error."""
    return {"value": job["absent"]}


GPU_IS_FULL = (
    "CUDA out of memory. Tried to allocate 514.00 MiB. GPU 0 has a total capacity of 79.18 GiB of "
    "which 80.44 MiB is free. Process 662 has 66.00 MiB memory in use."
)


def fill_gpu(_job: Mapping[str, Any], _emit: Emit) -> dict[str, Any]:
    """Raise what torch raises where a tensor does not fit."""
    import torch

    raise torch.OutOfMemoryError(GPU_IS_FULL)


def unsendable(_job: Mapping[str, Any], _emit: Emit) -> dict[str, Any]:
    """Return what no pipe carries."""
    return {"value": lambda: None}


def leave(_job: Mapping[str, Any], _emit: Emit) -> dict[str, Any]:
    """End the process as `sys.exit` in some library would."""
    print("leaving early", flush=True)  # noqa: T201
    sys.exit(3)


def die(_job: Mapping[str, Any], _emit: Emit) -> dict[str, Any]:
    """Be killed as the kernel does when memory runs out."""
    print("last words", flush=True)  # noqa: T201
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def abandon(_job: Mapping[str, Any], _emit: Emit) -> dict[str, Any]:
    """Return while a process of one's own, deaf to SIGTERM, goes on."""
    return {"pids": [os.getpid(), _start_stubborn().pid]}


def stay(job: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
    """Report one's processes and work on; on SIGTERM write the file `job` names."""

    def stop(_number: int, _frame: object) -> None:
        Path(job["stopped"]).write_text("cleanly", encoding="utf-8")
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    emit({"pids": [os.getpid(), _start_stubborn().pid]})
    time.sleep(600)
    return {}


def ignore(_job: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
    """Report one's process and stay, whatever is asked."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    emit({"pids": [os.getpid()]})
    time.sleep(600)
    return {}


def _start_stubborn() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", _STUBBORN])


def multiply_on_gpu(job: Mapping[str, Any], _emit: Emit) -> dict[str, Any]:
    """Use CUDA; whether torch was there before says whether this process was forked."""
    is_forked = "torch" in sys.modules
    import torch

    value = torch.full((4,), float(job["value"]), device="cuda")
    return {"sum": float((value * 2).sum()), "is_forked": is_forked}


def train_and_say_how_it_waits(job: TrainRound, emit: Emit) -> str | None:
    """Train a round; events and result carry what OpenMP is told in the rank and in the job."""

    def say(_event: dict[str, Any]) -> None:
        emit({"rank": os.environ.get("OMP_WAIT_POLICY")})

    train_round(job, say)
    return os.environ.get("OMP_WAIT_POLICY")
