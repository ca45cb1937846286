"""The disk: a real folder in memory, behind a gate that makes it slow, full, absent or deadly.

Python reports every file operation to audit hooks before it happens, and the store's Arrow file
system is subclassed; both pass the gate. There the operation takes time, fails, or is the one at
which its process is killed. A killed process never passes the gate again, so nothing that a
`finally` does reaches the disk. A write that is cut leaves half of its bytes, as a real one does.
"""

import errno
import os
import sys
from collections.abc import Callable
from typing import Any

from pyarrow import fs

from tests.simulation.world import Killed, World

TROUBLES = ("full", "away", "slow")
_WRITING = frozenset({"os.rename", "os.mkdir", "os.link"})
_FREEING = frozenset({"os.remove", "os.rmdir"})
_READING = frozenset({"os.listdir", "os.scandir"})


class Gate:
    """What every operation on the disk passes."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.world: World | None = None
        self.wall: Callable[[], float] = float
        """The wall clock, in seconds since 1970."""
        self.latency = 0.002
        """Mean seconds of an operation."""
        self.troubles: list[tuple[float, float, str]] = []
        """From, until, and what: full, away or slow."""
        sys.addaudithook(self._hear)

    def pass_through(self, what: str, path: str, tear: Callable[[], Any] | None = None) -> None:
        """Let an operation take its time, fail, or be its process's last.

        Args:
            what: read, write or free.
            path: Where.
            tear: Leaves the traces of an operation that is cut.
        """
        world = self.world
        process = None if world is None else world.process
        if process is None:
            return
        if process.is_dead:
            raise Killed
        present = {kind for start, end, kind in self.troubles if start <= world.now < end}
        mean = self.latency * (200 if "slow" in present else 1)
        world.wait(mean * 2 * world.random.random())
        world.trace.append((world.now, process.name, f"{what} {path.removeprefix(self.root)}"))
        if what != "read":  # to be killed while reading changes no more than a moment later
            process.num_changes += 1
            if process.num_changes == process.kill_at:
                if tear is not None:
                    tear()
                world.num_kills += 1
                world.kill(process)
                raise Killed
        if what == "write" and "full" in present:
            if tear is not None:
                tear()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if "away" in present and "/store/" in path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self.world is None:
            return
        if event == "open":
            flags = args[2] or 0
            what = "write" if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else "read"
        elif event in _WRITING:
            what = "write"
        elif event in _FREEING:
            what = "free"
        elif event in _READING:
            what = "read"
        else:
            return
        path = args[0]
        if not isinstance(path, int):
            path = os.fspath(path)
            if isinstance(path, str) and path.startswith(self.root):
                self.pass_through(what, path)


def _gated(what: str, name: str) -> Callable[..., Any]:
    def operation(self: Any, path: Any, *args: Any, **more: Any) -> Any:
        shown = path if isinstance(path, str) else getattr(path, "base_dir", str(path))
        self.gate.pass_through(what, shown)
        return getattr(self.kind, name)(self, path, *args, **more)

    return operation


class _Operations:
    """The operations of an Arrow file system, each behind the gate."""

    gate: Gate
    kind: type[fs.FileSystem]
    get_file_info = _gated("read", "get_file_info")
    open_input_stream = _gated("read", "open_input_stream")
    open_input_file = _gated("read", "open_input_file")
    create_dir = _gated("write", "create_dir")
    delete_file = _gated("free", "delete_file")

    def delete_dir(self, path: str) -> None:
        """Delete file by file, as file systems do: a kill in between leaves the rest."""
        selector = fs.FileSelector(path, recursive=True)
        for info in sorted(self.kind.get_file_info(self, selector), key=lambda i: str(i.path)):
            if info.is_file:
                self.delete_file(info.path)
        self.kind.delete_dir(self, path)


class Folder(_Operations, fs.LocalFileSystem):
    """A local disk: what is written is visible at once, byte by byte."""

    kind = fs.LocalFileSystem

    def open_output_stream(self, path: str) -> "_Sink":
        self.gate.pass_through("write", path)
        return _Sink(self, path, super().open_output_stream(path))


class Bucket(_Operations, fs.SubTreeFileSystem):
    """An object store: what is written becomes visible when the stream is closed, all at once."""

    kind = fs.SubTreeFileSystem

    def open_output_stream(self, path: str) -> "_Sink":
        return _Sink(self, path, None)


class _Sink:
    """A stream to a file."""

    def __init__(self, system: Any, path: str, stream: Any) -> None:
        self._system, self._path, self._stream = system, path, stream
        self._content = b""

    def write(self, content: Any) -> None:
        content = bytes(content)
        if self._stream is None:
            self._content += content
            return
        half = len(content) // 2
        self._stream.write(content[:half])
        self._stream.flush()
        self._system.gate.pass_through("write", self._path, self._stream.close)
        self._stream.write(content[half:])

    def __enter__(self) -> "_Sink":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self._stream is not None:
            self._stream.close()
            self._date(self._path)
        elif kind is None or not issubclass(kind, Killed):
            self._system.gate.pass_through("write", self._path)
            fs.SubTreeFileSystem.create_dir(self._system, self._path.rpartition("/")[0])
            with fs.SubTreeFileSystem.open_output_stream(self._system, self._path) as stream:
                stream.write(self._content)
            self._date(f"/{self._path}")

    def _date(self, path: str) -> None:
        """Date a file by the night's clock, which is as coarse as some file systems' are."""
        when = self._system.gate.wall()
        os.utime(path, (when, when))
