"""Child processes: engines never run in the flow's process.

Two kinds:

- `run_job` runs one of our functions (training, sampling a student, the discriminator) in its own
  process and returns its result. The process is forked from a server that has already imported
  torch, which saves about ten seconds per job on two cores. A driver does not survive a fork, so
  the server does not touch CUDA (`preload`). The drivers of other accelerators start on import;
  with those, the process is a fresh interpreter.
- `Server` runs another program that keeps running, such as vLLM, in its own session and behind
  `guard.py`.

Both write to a log file, because a pipe can block or kill the child. To stop, they send SIGTERM,
wait, and kill the whole process group. Errors end with the last lines of the log. GPU memory is
free when the call returns.
"""

import contextlib
import ctypes
import logging
import multiprocessing
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, TypeVar

from qcrd_core import errors
from qcrd_core.errors import LaunchError, QcrdError
from qcrd_core.runtime.openmp import passive_openmp

logger = logging.getLogger(__name__)

Emit = Callable[[dict[str, Any]], None]
"""Sends one small JSON-able event from a running job to its parent."""

JobT = TypeVar("JobT")
ValueT = TypeVar("ValueT")

_TAIL_LINES = 25
# torch reports a failed write by the position that its archive has reached.
_FULL_DISK = re.compile(r"No space left on device|Disk quota exceeded|inline_container\.cc")
_GPU_NUMBERS = re.compile(r"Tried to allocate .+? is free")
_CUDA_DEVICE = "/dev/nvidiactl"
_ACCELERATOR_DEVICES = (_CUDA_DEVICE, "/dev/kfd", "/dev/accel")
COUNT_WITHOUT_DRIVER = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""Environment in which torch counts CUDA devices without waking the driver: ranks are forked from
their job after torchrun's agent has asked."""
TEMPORARY = "_tmp-qcrd-"
"""How names in the system's temporary folder begin; the janitor deletes what was left there."""
_PR_SET_PDEATHSIG = 1
_PRELOAD = ["qcrd_core.runtime.preload"]
_context_lock = threading.Lock()


@dataclass(frozen=True)
class Finished(Generic[ValueT]):
    """Result of a finished job."""

    value: ValueT
    """The value that its function returned."""
    peak_memory_bytes: int
    """Peak memory of the child, or of its largest child."""


def run_job(
    function: Callable[[JobT, Emit], ValueT],
    job: JobT,
    *,
    log: Path,
    on_event: Emit | None = None,
    grace_seconds: float = 60.0,
) -> Finished[ValueT]:
    """Run `function(job, emit)` in a child process and return its result.

    Args:
        function: A function of a module that loads no engine; see the `jobs` modules.
        job: Its inputs: a small frozen dataclass, which is pickled.
        log: File that receives the child's output; appended to.
        on_event: Called here for each event the child emits.
        grace_seconds: Time between SIGTERM and SIGKILL when this call is interrupted.

    Returns:
        The function's value, which is pickled too, and the child's peak memory.

    Raises:
        QcrdError: If the function raised one of our own errors.
        LaunchError: If the child died or raised any other error; ends with the last log lines.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    context = _context()
    receiver, sender = context.Pipe(duplex=False)
    # The fork server keeps the environment of its first job, so each job receives the present one.
    # The work is pickled here and unpickled after the child's log is open, so that a failure of
    # either step is reported.
    work, name = pickle.dumps((function, job)), function.__name__
    arguments = (work, name, str(log), sender, _job_environment())
    process = context.Process(target=_child, args=arguments)
    process.start()
    sender.close()
    try:
        outcome = _receive(receiver, on_event)
        process.join()
    finally:
        _end_job(process, grace_seconds)
        receiver.close()
    if outcome is None:
        msg = (
            f"The job {name} died with exit code {process.exitcode}. "
            f"Last lines of {log}:\n{tail(log)}"
        )
        raise LaunchError(msg)
    kind, value = outcome
    if kind == "error":
        error, message = value
        raise getattr(errors, error)(message)
    if kind == "crash":
        msg = f"The job {name} failed: {value}. Last lines of {log}:\n{tail(log)}"
        raise LaunchError(msg)
    return Finished(*value)


class Server:
    """Another program that runs until `stop`, in its own session."""

    def __init__(self, command: Sequence[str], *, log: Path, env: Mapping[str, str]) -> None:
        """Start the program.

        Args:
            command: Program and arguments.
            log: File that receives its output; appended to.
            env: Variables set on top of this process's environment.

        Raises:
            LaunchError: If the program does not exist.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        guard = Path(__file__).with_name("guard.py")
        if not Path(command[0]).exists():
            msg = f"{command[0]} does not exist, so it cannot be started. Run `qcrd doctor`."
            raise LaunchError(msg)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-E", "-S", str(guard), str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                start_new_session=True,
            )
        self.pid = self._process.pid

    def is_alive(self) -> bool:
        """Whether the program still runs."""
        return self._process.poll() is None

    def stop(self, grace_seconds: float = 15.0) -> None:
        """Send SIGTERM, wait, then kill the whole group. Safe to call twice."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                logger.warning(
                    "The server did not stop within %.0f s and was killed | log %s",
                    grace_seconds,
                    self.log,
                )
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """The last lines of a log file, each indented; empty if the file is absent."""
    with contextlib.suppress(OSError):
        text = log.read_text(encoding="utf-8", errors="replace")
        return "\n".join("  " + line for line in text.splitlines()[-lines:])
    return ""


def explain_exhausted(what: str, error: str) -> str | None:
    """Turn an error about a full GPU or a full disk into a sentence.

    Args:
        what: The work that did not fit.
        error: Name and text of an exception.

    Returns:
        The sentence; None if the exception has another cause.
    """
    if _FULL_DISK.search(error):
        return (
            f"{what} could not write a file, because the disk is full: {error.splitlines()[0]}. "
            "Finished stages and the last checkpoint are kept. Free space on the disks of run.store"
            " and run.scratch, and run again."
        )
    if not error.startswith("OutOfMemoryError"):
        return None
    numbers = _GPU_NUMBERS.search(error)
    detail = numbers.group() if numbers else error.splitlines()[0]
    return (
        f"{what} ran out of GPU memory: {detail}. Finished stages are kept. Lower "
        "training.micro_batch_size, discriminator.max_tokens or evaluation.batch_size, or stop "
        "other programs that use the GPU, and run again."
    )


def has_accelerator() -> bool:
    """Whether an accelerator's device file exists. Asks no driver, so a later fork stays safe."""
    return any(Path(device).exists() for device in _ACCELERATOR_DEVICES)


def can_fork() -> bool:
    """Whether a process that has torch imported may be forked before it uses a device."""
    return not has_accelerator() or Path(_CUDA_DEVICE).exists()


def num_gpus() -> int:
    """CUDA devices that this process may use, counted by device files and CUDA_VISIBLE_DEVICES."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None and has_accelerator():
        return len([device for device in named.split(",") if device.strip() not in {"", "-1"}])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (only on Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _context() -> Any:
    if not can_fork():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    with _context_lock:
        context.set_forkserver_preload(_PRELOAD)
    return context


def _job_environment() -> dict[str, str]:
    """What a job finds in its environment: the fork server's own is that of its first job."""
    return {**passive_openmp(), **os.environ, **COUNT_WITHOUT_DRIVER}


def _child(
    work: bytes, name: str, log: str, sender: Connection, environment: dict[str, str]
) -> None:
    os.setsid()
    threading.Thread(target=_die_with_caller, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    with Path(log).open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", force=True)
    try:
        function, job = pickle.loads(work)
        value = function(job, lambda event: sender.send(("event", event)))
        sender.send(("result", (value, _peak_memory_bytes())))
    except QcrdError as error:
        sender.send(("error", (type(error).__name__, str(error))))
    except Exception as error:  # noqa: BLE001  (process boundary: the parent reports it)
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
        sentence = explain_exhausted(f"The job {name}", text)
        explained = ("error", ("TrainingError", sentence)) if sentence else ("crash", text)
        sender.send(explained)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _peak_memory_bytes() -> int:
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(one).ru_maxrss for one in who)


def _die_with_caller() -> None:
    """Kill this job's group when the process that called `run_job` dies.

    The kernel's signal on the parent's death does not work here: the parent of a forked job is the
    fork server, which lives as long as any of its jobs.
    """
    caller = multiprocessing.parent_process()
    if caller is not None:
        caller.join()
        os.killpg(0, signal.SIGKILL)


def _receive(receiver: Connection, on_event: Emit | None) -> tuple[str, Any] | None:
    while True:
        try:
            kind, value = receiver.recv()
        except EOFError:
            return None
        if kind != "event":
            return kind, value
        if on_event is not None:
            on_event(value)


def _end_job(process: Any, grace_seconds: float) -> None:
    if process.is_alive():
        if not _signal_group(process.pid, signal.SIGTERM):
            process.terminate()  # it has not become the leader of its group yet
        process.join(grace_seconds)
    # The ranks of a training job share its session, and none may outlive it.
    _signal_group(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + grace_seconds
    while process.is_alive() and time.monotonic() < deadline:
        process.join(1.0)


def _signal_group(pid: int, number: int) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
        return True
    return False
