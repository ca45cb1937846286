"""Servers that a killed run left behind.

`guard.py` ends its server when its parent dies, but somebody may have killed the guard as well;
vLLM's engine then holds memory and cores for ever. Each managed server is noted in a pid file in
the scratch folder; the next run kills what is left of a server whose owner is gone.
"""

import contextlib
import json
import logging
import os
import signal
import time
from pathlib import Path

logger = logging.getLogger(__name__)

_KILL_SECONDS = 10.0
_POLL_SECONDS = 0.1


def remember(scratch: Path, group: int) -> None:
    """Note a server that this process started.

    Args:
        scratch: Folder of the pid files.
        group: The server's process group.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    owner = os.getpid()
    note = {"owner": owner, "owner_started": _started(owner), "group": group}
    _pid_file(scratch, group).write_text(json.dumps(note), encoding="utf-8")


def forget(scratch: Path, group: int) -> None:
    """Drop the note of a server that has been stopped."""
    _pid_file(scratch, group).unlink(missing_ok=True)


def kill_leftovers(scratch: Path) -> int:
    """Kill what is left of servers whose owner is gone.

    A process is killed only if it is in the noted group and its command line says that it is a
    vLLM server or its guard: process numbers are used again.

    Args:
        scratch: Folder of the pid files.

    Returns:
        Number of process groups killed.
    """
    num_killed = 0
    for path in sorted(scratch.glob("teacher-server-*.json")):
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
            owner, started, group = note["owner"], note["owner_started"], int(note["group"])
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning("%s is no pid file of a server; deleted", path)
            path.unlink(missing_ok=True)
            continue
        if started is not None and _started(owner) == started:
            continue
        if group > 1 and _members(group):
            logger.warning("A killed run left a vLLM server behind (group %d); killed", group)
            _kill(group)
            num_killed += 1
        path.unlink(missing_ok=True)
    return num_killed


def _kill(group: int) -> None:
    deadline = time.monotonic() + _KILL_SECONDS
    while _members(group) and time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _members(group: int) -> list[int]:
    return [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if _group_of(int(entry.name)) == group and _is_ours(entry)
    ]


def _group_of(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.getpgid(pid)
    return None


def _is_ours(entry: Path) -> bool:
    with contextlib.suppress(OSError):
        return b"vllm" in (entry / "cmdline").read_bytes().lower()
    return False


def _started(pid: int) -> str | None:
    # Field 22 of stat, counted behind the name, which may hold blanks and brackets.
    with contextlib.suppress(OSError, IndexError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[19]
    return None


def _pid_file(scratch: Path, group: int) -> Path:
    return scratch / f"teacher-server-{group}.json"
