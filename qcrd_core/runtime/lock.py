"""A lock between the processes of one machine.

The package filelock does not serve: its lock that several may share is an SQLite database.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def lock(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold a file for as long as the block lasts; the kernel frees it when the process dies.

    Args:
        path: The file, which is made if it is absent. Two threads of a process exclude each other
            as two processes do.
        shared: Let others that say the same hold it too.
        wait: Wait until it is free, or else run the block without it.

    Yields:
        Whether it is held; always true after waiting.
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
