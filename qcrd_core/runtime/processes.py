"""Child processes: engines never run in the flow's own process.

Two kinds:

- `run_job` runs one of our own functions (training, sampling a student, the discriminator) in a
  process of its own and returns its result. The process is forked from a server that has torch
  imported already: that saves about ten seconds a job on two cores. A driver does not survive a
  fork, so the server leaves CUDA alone (`preload`), and with other accelerators, whose drivers wake
  when they are imported, the process is a fresh interpreter.
- `Server` runs a foreign program that stays, such as vLLM, in its own session and behind
  `guard.py`.

Both: output to a log file (a pipe can block or kill the child), terminate, grace, kill of the whole
group, and an error that carries the log's end. GPU memory is free when the call returns.
"""

import contextlib
import ctypes
import importlib
import logging
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from qcrd_core import errors
from qcrd_core.errors import LaunchError, QcrdError

logger = logging.getLogger(__name__)

Emit = Callable[[dict[str, Any]], None]
"""How a job reports to its parent while it runs: one small JSON-able event."""

_TAIL_LINES = 25
_GPU_NUMBERS = re.compile(r"Tried to allocate .+? is free")
_CUDA_DEVICE = "/dev/nvidiactl"
_ACCELERATOR_DEVICES = (_CUDA_DEVICE, "/dev/kfd", "/dev/accel")
COUNT_WITHOUT_DRIVER = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""Environment in which torch counts CUDA devices without waking the driver: ranks are forked from
their job after torchrun's agent has asked."""
_PR_SET_PDEATHSIG = 1
_PRELOAD = ["qcrd_core.runtime.preload"]
_context_lock = threading.Lock()


def run_job(
    target: str,
    payload: Mapping[str, Any],
    *,
    log: Path,
    on_event: Emit | None = None,
    grace_seconds: float = 60.0,
) -> dict[str, Any]:
    """Run `module:function(payload, emit)` in a child process and return its result.

    Args:
        target: Function to import and call in the child, for example
            `qcrd_core.training.train:main`.
        payload: JSON-able argument.
        log: File that receives the child's output; appended to.
        on_event: Called here for each event the child emits.
        grace_seconds: Time between SIGTERM and SIGKILL when this call is interrupted.

    Returns:
        What the function returned, a small dict, and `peak_memory_bytes`: the most that the child,
        or one of its own children, held in memory.

    Raises:
        QcrdError: Whatever the function raised of our own errors.
        LaunchError: If the child died or raised anything else; ends with the log's tail.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    context = _context()
    receiver, sender = context.Pipe(duplex=False)
    # The fork server's environment is that of its first job; each job gets today's.
    arguments = (target, dict(payload), str(log), sender, {**os.environ, **COUNT_WITHOUT_DRIVER})
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
            f"{target} must end with a result; it died with exit code {process.exitcode}. "
            f"The end of {log}:\n{tail(log)}"
        )
        raise LaunchError(msg)
    kind, value = outcome
    if kind == "error":
        name, message = value
        raise getattr(errors, name)(message)
    if kind == "crash":
        msg = f"{target} must not fail; got {value}. The end of {log}:\n{tail(log)}"
        raise LaunchError(msg)
    result: dict[str, Any] = value
    return result


class Server:
    """A foreign program that runs until `stop`, in a session of its own."""

    def __init__(self, command: Sequence[str], *, log: Path, env: Mapping[str, str]) -> None:
        """Start it.

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
            msg = f"{command[0]} must be an existing program; it is absent. Run `qcrd doctor`."
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
        """Terminate, wait, kill the whole group. Safe to call twice."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                logger.warning("%s did not stop within %.0f s; killed", self.log, grace_seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """The last lines of a log file, each indented; empty when there is none."""
    with contextlib.suppress(OSError):
        text = log.read_text(encoding="utf-8", errors="replace")
        return "\n".join("  " + line for line in text.splitlines()[-lines:])
    return ""


def explain_exhausted_gpu(what: str, said: str) -> str | None:
    """Put torch's words about a full GPU into a sentence.

    Args:
        what: What did not fit.
        said: Name and text of an exception.

    Returns:
        The sentence; None if the exception is about something else.
    """
    if not said.startswith("OutOfMemoryError"):
        return None
    numbers = _GPU_NUMBERS.search(said)
    got = numbers.group() if numbers else said.splitlines()[0]
    return (
        f"{what} must fit into the GPU's memory; got: {got}. Lower training.micro_batch_size, "
        "discriminator.max_tokens or evaluation.batch_size, or end what else uses the GPU, and run "
        "again: what is done is kept."
    )


def has_accelerator() -> bool:
    """Whether an accelerator's device file is here. Asks no driver, so a later fork stays safe."""
    return any(Path(device).exists() for device in _ACCELERATOR_DEVICES)


def can_fork() -> bool:
    """Whether a process that has torch imported may be forked before it uses a device."""
    return not has_accelerator() or Path(_CUDA_DEVICE).exists()


def num_gpus() -> int:
    """How many CUDA devices this process may use, by device files and CUDA_VISIBLE_DEVICES."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None and has_accelerator():
        return len([device for device in named.split(",") if device.strip() not in {"", "-1"}])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere nothing)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _context() -> Any:
    if not can_fork():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    with _context_lock:
        context.set_forkserver_preload(_PRELOAD)
    return context


def _child(
    target: str, payload: dict[str, Any], log: str, sender: Connection, environment: dict[str, str]
) -> None:
    os.setsid()
    threading.Thread(target=_die_with_caller, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    with Path(log).open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", force=True)
    module, _, function = target.partition(":")
    try:
        result = getattr(importlib.import_module(module), function)(
            payload, lambda event: sender.send(("event", event))
        )
        sender.send(("result", {**result, "peak_memory_bytes": _peak_memory_bytes()}))
    except QcrdError as error:
        sender.send(("error", (type(error).__name__, str(error))))
    except Exception as error:  # noqa: BLE001  (process boundary: the parent explains)
        traceback.print_exc()
        said = f"{type(error).__name__}: {error}"
        sentence = explain_exhausted_gpu(target, said)
        explained = ("error", ("TrainingError", sentence)) if sentence else ("crash", said)
        sender.send(explained)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _peak_memory_bytes() -> int:
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(one).ru_maxrss for one in who)


def _die_with_caller() -> None:
    """Kill this job's group when the process that called `run_job` is gone.

    The kernel's signal does not do: a forked job's parent is the fork server, which lives as long
    as any of its jobs.
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
            process.terminate()  # so young that it leads no group yet
        process.join(grace_seconds)
    # Ranks of a training job share its session; none may outlive it.
    _signal_group(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + grace_seconds
    while process.is_alive() and time.monotonic() < deadline:
        process.join(1.0)


def _signal_group(pid: int, number: int) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
        return True
    return False
