"""One process a run on a machine: two at once would train the same rounds twice."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qcrd_core.config import RunConfig
from qcrd_core.errors import StoreError


@contextmanager
def run_lock(config: RunConfig, run_id: str) -> Iterator[None]:
    """Hold a run for as long as the block lasts; the kernel frees it when the process dies.

    Args:
        config: Names the scratch folder.
        run_id: The run.

    Raises:
        StoreError: If another process on this machine holds it.
    """
    path = _path(config.run.scratch, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            msg = (
                f"A run can be worked on by one process only; {run_id} is in the hands of process "
                f"{file.read().strip()}. Wait for it, or stop it and run again."
            )
            raise StoreError(msg) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def is_worked_on(scratch: Path, run_id: str) -> bool:
    """Whether a process of this machine holds a run.

    Args:
        scratch: Setting `run.scratch` of that process.
        run_id: The run.
    """
    try:
        with _path(scratch, run_id).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _path(scratch: Path, run_id: str) -> Path:
    return scratch / "runs" / run_id / "lock"
