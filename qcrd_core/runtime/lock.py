"""A lock between the processes of one machine.

The package filelock is not used, because its shared lock is an SQLite database.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def lock(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Lock a file while the block runs; the kernel frees it when the process dies.

    Args:
        path: The file, which is made if it is absent. Two threads of one process exclude each other
            as two processes do.
        shared: Whether others that also pass `shared` may hold it at the same time.
        wait: Wait until the lock is free. Otherwise the block runs without it.

    Yields:
        Whether the lock is held; always true with `wait`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    with path.open("ab") as file:
        is_mine = True
        try:
            fcntl.flock(file, kind)
        except BlockingIOError:
            is_mine = False
        yield is_mine
