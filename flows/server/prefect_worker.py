"""Prefect's worker, stopped in such a way that its runs write their checkpoints.

    python -m flows.server.prefect_worker [options of `prefect worker start`]

When Prefect's worker is told to stop, it kills its flow runs at once and exits, and a container
ends with its main process. Training would lose all steps since its last checkpoint. Therefore
another process stands above the worker: it lets the runs end first.
"""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import psutil

from qcrd_core.runtime.processes import die_with_parent

POOL = "qcrd"
_WORKER = (
    *(sys.executable, "-m", "prefect", "--no-prompt", "worker", "start"),
    *("--pool", POOL, "--type", "process", "--install-policy", "never"),
)
_POLL_SECONDS = 0.2


def run_worker(command: Sequence[str]) -> int:
    """Run a worker until it exits. SIGTERM and SIGINT end its flow runs first, then the worker.

    It waits for the runs as long as they take; whoever sent the signal sets the limit.

    Args:
        command: Program and arguments of the worker, whose children are the flow runs.

    Returns:
        The worker's exit code; 0 if it was asked to stop.
    """
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: asked.append(got))
    # In another group, so that Ctrl-C in a terminal reaches only this process.
    worker = subprocess.Popen(command, preexec_fn=die_with_parent, process_group=0)
    while worker.poll() is None and not asked:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(_POLL_SECONDS)
    if not asked:
        return worker.returncode
    with contextlib.suppress(psutil.NoSuchProcess):
        _end_runs(psutil.Process(worker.pid))
    worker.wait()
    return 0


def _end_runs(worker: psutil.Process) -> None:
    # A suspended worker neither kills the present runs nor starts those that wait for their place.
    worker.suspend()
    runs = worker.children()
    for run in runs:
        with contextlib.suppress(psutil.NoSuchProcess):
            run.terminate()
    while any(_is_running(run) for run in runs):
        time.sleep(_POLL_SECONDS)
    worker.terminate()
    worker.resume()


def _is_running(process: psutil.Process) -> bool:
    """Whether it has not ended. A suspended parent leaves what has ended as a zombie."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


if __name__ == "__main__":
    sys.exit(run_worker([*_WORKER, *sys.argv[1:]]))
