"""Processes that may outlive the command that started them, each noted in a file.

    daemon = Daemon("worker", home, marker="prefect")
    daemon.start(command, env=environment, cwd=root)
    daemon.is_alive()        # from any later process
    daemon.stop(grace_seconds=90)

A `processes.Server` is the opposite: `guard.py` ends it with its parent. If the guard is killed
too, vLLM's engine would hold memory and cores forever. So each vLLM server is noted as well,
together with its owner, and the next run kills orphaned servers:

    kill_orphans(scratch)
    note_server(scratch, server.pid)
    drop_note(scratch, server.pid)

Process numbers are reused, so a noted process counts only if its start time matches the note and
its command line contains a marker.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from qcrd_core.runtime.processes import tail

logger = logging.getLogger(__name__)

# psutil knows the machine's start only to the second.
_SAME_START_SECONDS = 5.0
_LEFTOVER_SECONDS = 15.0
_SERVER_MARKER = "vllm"


class Daemon:
    """One named process, at most one at a time in its folder."""

    def __init__(self, name: str, folder: Path, *, marker: str) -> None:
        """Name it; starts nothing.

        Args:
            name: Name of its files.
            folder: Where its note `<name>.json` and its output `<name>.log` lie.
            marker: Text that the command line of it and of its children has.
        """
        self.name, self.log = name, folder / f"{name}.log"
        self._note, self._marker = folder / f"{name}.json", marker

    def start(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, umask: int = -1
    ) -> None:
        """Start it as the leader of a new session.

        Args:
            command: Program and arguments.
            env: Its whole environment.
            cwd: Folder it runs in.
            umask: Its umask; by default that of this process.
        """
        self._note.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                umask=umask,
                start_new_session=True,
            )
        process = psutil.Process(child.pid)
        note = {"pid": child.pid, "started": _started(process)}
        self._note.write_text(json.dumps(note), encoding="utf-8")
        # Popen returns a moment before the kernel shows the new command line, and until then nobody
        # would take the process for the noted one.
        with contextlib.suppress(psutil.Error):  # it has ended
            while child.poll() is None and not process.cmdline():
                time.sleep(0.001)
        # Popen warns about a child that is still running; this one is meant to outlive us.
        child.returncode = 0

    @property
    def pid(self) -> int | None:
        """Process number of the noted process; None if it does not run."""
        process = self._process()
        return None if process is None else process.pid

    def is_alive(self) -> bool:
        """Whether the noted process runs."""
        return self._process() is not None

    def tail(self) -> str:
        """The last lines of its output."""
        return tail(self.log)

    def stop(self, grace_seconds: float) -> bool:
        """Send SIGTERM, wait, then kill it and its children if they still run.

        Args:
            grace_seconds: Time between SIGTERM and SIGKILL.

        Returns:
            Whether it ran. Children that a killed process left behind are ended in any case.
        """
        process = self._process()
        family = self._leftovers()
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                family += process.children(recursive=True)
            _signal(process, "terminate")
            psutil.wait_procs([process], grace_seconds)
            # Its children end with it, or notice that it has ended.
            _, family = psutil.wait_procs(family, min(grace_seconds, _LEFTOVER_SECONDS))
            family += [process, *self._leftovers()]
        for one in family:
            _signal(one, "kill")
        psutil.wait_procs(family, _LEFTOVER_SECONDS)
        self._note.unlink(missing_ok=True)
        return process is not None

    def _noted(self) -> tuple[int, float] | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(self._note.read_text(encoding="utf-8"))
            return int(note["pid"]), float(note["started"])
        return None

    def _process(self) -> psutil.Process | None:
        noted = self._noted()
        process = None if noted is None else _find(*noted)
        return process if process and _has_marker(process, self._marker) else None

    def _leftovers(self) -> list[psutil.Process]:
        """Members of the noted process's session, which may have lost their leader."""
        noted = self._noted()
        if noted is None:
            return []
        members = _members(os.getsid, noted[0], self._marker)
        return [process for process in members if process.pid != noted[0]]


def note_server(scratch: Path, group: int) -> None:
    """Note a vLLM server that this process started.

    Args:
        scratch: Folder of the notes.
        group: The server's process group.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    owner = psutil.Process()
    note = {"owner": owner.pid, "started": _started(owner), "group": group}
    _server_note(scratch, group).write_text(json.dumps(note), encoding="utf-8")


def drop_note(scratch: Path, group: int) -> None:
    """Drop the note of a vLLM server that has been stopped."""
    _server_note(scratch, group).unlink(missing_ok=True)


def kill_orphans(scratch: Path) -> int:
    """Kill vLLM servers, or parts of them, whose owner has died.

    Args:
        scratch: Folder of the notes.

    Returns:
        Number of process groups killed.
    """
    num_killed = 0
    for path in sorted(scratch.glob("teacher-server-*.json")):
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
            owner, started, group = int(note["owner"]), float(note["started"]), int(note["group"])
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning("%s does not describe a vLLM server; the file was deleted", path)
            path.unlink(missing_ok=True)
            continue
        if _find(owner, started) is not None:
            continue
        members = _members(os.getpgid, group, _SERVER_MARKER) if group > 1 else []
        if members:
            logger.warning(
                "A killed run left a vLLM server running (process group %d); it was killed", group
            )
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
            psutil.wait_procs(members, _LEFTOVER_SECONDS)
            num_killed += 1
        path.unlink(missing_ok=True)
    return num_killed


def _server_note(scratch: Path, group: int) -> Path:
    return scratch / f"teacher-server-{group}.json"


def _started(process: psutil.Process) -> float:
    # Seconds since the machine started: both numbers shift together if somebody sets the clock.
    return process.create_time() - psutil.boot_time()


def _find(pid: int, started: float) -> psutil.Process | None:
    """The process with this number, if it runs and started at this time."""
    with contextlib.suppress(psutil.Error, ValueError):
        process = psutil.Process(pid)
        is_same = abs(_started(process) - started) < _SAME_START_SECONDS
        if is_same and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _members(of: Callable[[int], int], number: int, marker: str) -> list[psutil.Process]:
    """Marked processes of a group (`os.getpgid`) or session (`os.getsid`)."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if of(process.pid) == number and _has_marker(process, marker):
                members.append(process)
    return members


def _has_marker(process: psutil.Process, marker: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return marker in " ".join(process.cmdline()).lower()
    return False


def _signal(process: psutil.Process, method: str) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        getattr(process, method)()
