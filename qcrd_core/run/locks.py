"""Locks of a run on one machine: one process trains it, several may sample it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qcrd_core.config.run import RunConfig
from qcrd_core.errors import StoreError
from qcrd_core.runtime.lock import lock
from qcrd_core.store.filesystem import access_error

_RUN, _SAMPLING = "lock", "sampling-lock"


@contextmanager
def run_lock(config: RunConfig, run_id: str) -> Iterator[None]:
    """Lock a run while the block runs, so that no other process trains the same rounds.

    Args:
        config: Names the scratch folder.
        run_id: The run.

    Raises:
        StoreError: If another process on this machine holds it.
    """
    with _held(_folder(config.run.scratch, run_id) / _RUN, "trained", shared=False):
        yield


@contextmanager
def sampling_lock(config: RunConfig, run_id: str) -> Iterator[None]:
    """Lock the sampling of a run while the block runs.

    Several processes may sample one run from running servers. If each would have to start its own
    teacher, only one may, because two engines do not fit on one machine.

    Args:
        config: Names the scratch folder and the servers.
        run_id: The run.

    Raises:
        StoreError: If another process on this machine runs the teacher of the run.
    """
    path = _folder(config.run.scratch, run_id) / _SAMPLING
    is_served = all(teacher.endpoints is not None for teacher in config.teachers)
    with _held(path, "sampled", shared=is_served):
        yield


@contextmanager
def _held(path: Path, doing: str, *, shared: bool) -> Iterator[None]:
    with lock(path, shared=shared, wait=False) as is_mine:
        if not is_mine:
            other = path.read_text(encoding="utf-8").strip()
            msg = f"Run {path.parent.name} is already being {doing} by process {other}. "
            if doing == "sampled":
                msg += "Only running servers (teacher.endpoints) can be shared by processes. "
            raise StoreError(msg + "Wait for it, or stop it and run again.")
        try:
            path.write_text(f"{os.getpid()}\n", encoding="utf-8")
        except OSError as error:
            raise access_error(error, str(path), "written") from error
        yield


def is_worked_on(scratch: Path, run_id: str) -> bool:
    """Whether a process on this machine is training or sampling a run.

    Args:
        scratch: Setting `run.scratch` of that process.
        run_id: The run.
    """
    for path in (_folder(scratch, run_id) / name for name in (_RUN, _SAMPLING)):
        if path.exists():
            with lock(path, wait=False) as is_free:
                if not is_free:
                    return True
    return False


def _folder(scratch: Path, run_id: str) -> Path:
    return scratch / "runs" / run_id
