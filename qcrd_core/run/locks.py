"""Which processes of a machine may work on what at once.

One trains a run, several may sample it, and several share the cells of a bench.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qcrd_core.config.run import RunConfig
from qcrd_core.errors import StoreError

_RUN, _SAMPLING = "lock", "sampling-lock"


@contextmanager
def run_lock(config: RunConfig, run_id: str) -> Iterator[None]:
    """Hold a run for as long as the block lasts; the kernel frees it when the process dies.

    Two at once would train the same rounds twice.

    Args:
        config: Names the scratch folder.
        run_id: The run.

    Raises:
        StoreError: If another process on this machine holds it.
    """
    rule = "A run can be trained by one process only"
    with _held(config.run.scratch / "runs" / run_id / _RUN, fcntl.LOCK_EX, rule):
        yield


@contextmanager
def sampling_lock(config: RunConfig, run_id: str) -> Iterator[None]:
    """Say that a run is sampled for as long as the block lasts.

    Several processes may sample it at once on running servers; a teacher that each would have to
    start is for one of them, since two engines do not fit on one machine.

    Args:
        config: Names the scratch folder and the servers.
        run_id: The run.

    Raises:
        StoreError: If another process on this machine runs the teacher of the run.
    """
    kind = fcntl.LOCK_EX if config.teacher.endpoints is None else fcntl.LOCK_SH
    rule = (
        "Several processes of a machine can sample a run on running servers only "
        "(teacher.endpoints)"
    )
    with _held(config.run.scratch / "runs" / run_id / _SAMPLING, kind, rule):
        yield


@contextmanager
def _held(path: Path, kind: int, rule: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            msg = (
                f"{rule}; {path.parent.name} is in the hands of process {file.read().strip()}. "
                "Wait for it, or stop it and run again."
            )
            raise StoreError(msg) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Try to have a piece of work to oneself for as long as the block lasts.

    Args:
        path: File that stands for it, on this machine.

    Yields:
        Whether it is this process's; if not, another one has it now.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_mine = True
        except OSError:
            is_mine = False
        yield is_mine


def is_worked_on(scratch: Path, run_id: str) -> bool:
    """Whether a process of this machine holds a run.

    Args:
        scratch: Setting `run.scratch` of that process.
        run_id: The run.
    """
    folder = scratch / "runs" / run_id
    return any(_is_held(folder / name) for name in (_RUN, _SAMPLING))


def _is_held(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
