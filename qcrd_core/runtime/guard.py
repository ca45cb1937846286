"""Run a command and end its whole process group when the parent is gone.

    python guard.py <parent pid> <command> [arguments ...]

`qcrd_core.runtime.processes` starts servers through this file, as leaders of their own sessions. A
parent killed by SIGKILL cannot clean up, and vLLM's workers outlive their own parent; this process
sees that its parent has changed and kills the group. It uses the standard library only, so that it
starts in milliseconds and stays small beside the server.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.1
_LEFTOVER_SECONDS = 2.0


def main(parent: int, command: list[str]) -> int:
    """Run `command` until it ends, the parent is gone, or SIGTERM asks to stop.

    Args:
        parent: Process that must stay alive.
        command: Program and arguments.

    Returns:
        The command's exit code.
    """
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(command)
    while child.poll() is None:
        if stopping or os.getppid() != parent:
            _end(child)
        # Waiting for the child, not sleeping: its death must be seen before the client's retries
        # against the dead server are used up.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_POLL_SECONDS)
    # Whatever the command left behind in this group goes with it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    if os.getppid() != parent:
        # `Server.stop`, which kills what does not listen, will not be called any more.
        time.sleep(_LEFTOVER_SECONDS)
        os.killpg(0, signal.SIGKILL)
    return child.returncode


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
