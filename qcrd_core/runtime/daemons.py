"""Processes that outlive the command that started them, each noted in a file.

    daemon = Daemon("worker", home, marker="prefect")
    daemon.start(command, env=environment, cwd=root)
    daemon.is_alive()        # from any later process
    daemon.stop(grace_seconds=90)

`processes.Server` is the opposite: it ends with its parent. Process numbers are used again, so the
noted one counts only if its process began when the note says and its command line has the marker.
"""

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from qcrd_core.runtime.processes import tail

# psutil computes start times from the clock, which somebody may set.
_SAME_START_SECONDS = 60.0
_LEFTOVER_SECONDS = 15.0


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

    def start(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        """Start it as the leader of a session of its own.

        Args:
            command: Program and arguments.
            env: Its whole environment.
            cwd: Folder it runs in.
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
                start_new_session=True,
            )
        note = {"pid": child.pid, "started": psutil.Process(child.pid).create_time()}
        self._note.write_text(json.dumps(note), encoding="utf-8")
        # Popen warns of a child that it has not seen end; this one is meant to go on.
        child.returncode = 0

    @property
    def pid(self) -> int | None:
        """Number of the noted process; None if it does not run."""
        process = self._process()
        return None if process is None else process.pid

    def is_alive(self) -> bool:
        """Whether the noted process runs."""
        return self._process() is not None

    def tail(self) -> str:
        """The end of its output."""
        return tail(self.log)

    def stop(self, grace_seconds: float) -> bool:
        """Terminate it, wait, then kill whatever is left of it and of its children.

        Args:
            grace_seconds: Time between SIGTERM and SIGKILL.

        Returns:
            Whether it ran. What a killed one left behind is ended in any case.
        """
        process = self._process()
        family = self._leftovers()
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                family += process.children(recursive=True)
            _signal(process, "terminate")
            psutil.wait_procs([process], grace_seconds)
            # Its children end with it, or see that it is gone.
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
        if noted is None:
            return None
        pid, started = noted
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            is_same = abs(process.create_time() - started) < _SAME_START_SECONDS
            if is_same and process.status() != psutil.STATUS_ZOMBIE and self._is_ours(process):
                return process
        return None

    def _leftovers(self) -> list[psutil.Process]:
        """Members of the noted process's session, which may have lost their leader."""
        noted = self._noted()
        if noted is None:
            return []
        return [
            process
            for process in psutil.process_iter()
            if process.pid != noted[0]
            and _session(process.pid) == noted[0]
            and self._is_ours(process)
        ]

    def _is_ours(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return self._marker in " ".join(process.cmdline())
        return False


def _session(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.getsid(pid)
    return None


def _signal(process: psutil.Process, method: str) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        getattr(process, method)()
