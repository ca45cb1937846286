"""A lock between the processes of one machine.

The package filelock is not used, because its shared lock is an SQLite database.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from qcrd_core.errors import StoreError


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

    Raises:
        StoreError: If the file cannot be made, for example because the disk is full.
    """
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    with open_lock_file(path) as file:
        is_mine = True
        try:
            fcntl.flock(file, kind)
        except BlockingIOError:
            is_mine = False
        yield is_mine


def open_lock_file(path: Path) -> BinaryIO:
    """Open the file of a lock, and make it if it is absent.

    Raises:
        StoreError: If it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        msg = f"{path} could not be written: {error.strerror}."
        raise StoreError(msg) from error
