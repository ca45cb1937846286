"""The files of a store, read and put back only where they are not what they were.

Most files of a night are those of the last night of its kind, whose store is set aside until then.
A file is the same while its inode, its size and the time of its last change are, which nobody can
set.
"""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

# A file that has changed within this time may change again without another time of its change.
_TICK_NS = 20_000_000
_Known = dict[str, tuple[tuple[int, int, int], bytes]]


class Tree:
    """A folder with the store of a night in it, and the stores of other kinds beside the folder."""

    def __init__(self, root: Path, store: str) -> None:
        self._root, self._store, self._aside = root, root / store, Path(f"{root}-aside")
        self._kind: str | None = None
        self._known_of: dict[str | None, _Known] = {None: {}}

    def empty(self) -> None:
        """Remove all files of all kinds."""
        for folder in (self._root, self._aside):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        self._kind, self._known_of = None, {None: {}}

    def visible(self) -> dict[str, bytes]:
        """Every file that readers of the store see, with its content."""
        start = len(str(self._store)) + 1
        return {
            entry.path[start:]: self._read(entry)
            for entry in _scan(str(self._store), hidden="_tmp")
            if not entry.is_dir(follow_symlinks=False)
        }

    def restore(self, files: dict[str, bytes], kind: str, seconds: float) -> None:
        """Make these the only files, all of them written at one time.

        Args:
            files: Content by path in the store.
            kind: What has the same files each time.
            seconds: When they were written, in seconds since 1970.
        """
        self._take(kind)
        wanted = {f"{self._store}/{path}": content for path, content in files.items()}
        folders = {path.rpartition("/")[0] for path in wanted}
        for entry in _scan(str(self._store)):
            if entry.is_dir(follow_symlinks=False):
                if not any(f"{folder}/".startswith(f"{entry.path}/") for folder in folders):
                    Path(entry.path).rmdir()
            elif wanted.get(entry.path) == self._read(entry):
                del wanted[entry.path]
            else:
                Path(entry.path).unlink()
        for path, content in wanted.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(content)
            os.utime(path, (seconds, seconds))

    def _take(self, kind: str) -> None:
        """Set another kind's store aside, take this kind's, and remove what lies beside it."""
        if kind != self._kind:
            if self._store.exists():
                self._store.rename(self._aside / str(self._kind))
            self._kind = kind
            if kind in self._known_of:
                (self._aside / kind).rename(self._store)
            self._known_of.setdefault(kind, {})
        for path in self._root.iterdir():
            if path != self._store:
                shutil.rmtree(path)

    def _read(self, entry: "os.DirEntry[str]") -> bytes:
        stat, known = entry.stat(follow_symlinks=False), self._known_of[self._kind]
        state = stat.st_ino, stat.st_size, stat.st_ctime_ns
        before = known.get(entry.path)
        if before is not None and before[0] == state:
            return before[1]
        content = Path(entry.path).read_bytes()
        if time.time_ns() - stat.st_ctime_ns > _TICK_NS:
            known[entry.path] = state, content
        return content


def _scan(folder: str, hidden: str = "/") -> "Iterator[os.DirEntry[str]]":
    """Files and folders below a folder, by name; a folder comes after its content."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in found:
        if not entry.name.startswith(hidden):
            if entry.is_dir(follow_symlinks=False):
                yield from _scan(entry.path, hidden)
            yield entry
