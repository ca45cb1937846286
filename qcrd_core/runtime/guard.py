"""Run a command and end its whole process group when the parent dies.

    python guard.py <parent pid> <command> [arguments ...]

`qcrd_core.runtime.processes` starts servers through this file, each in its own session. A parent
killed by SIGKILL cannot clean up, and vLLM's workers outlive their parent. This process notices
that its parent has changed, and kills the group. It imports only the standard library, so it starts
in milliseconds and needs little memory.
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
    """Run `command` until it ends, the parent dies, or SIGTERM arrives.

    Args:
        parent: Process number of the parent.
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
        # Wait for the child instead of sleeping: its death must be noticed before the client has
        # used up its retries against the dead server.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_POLL_SECONDS)
    # Processes that the command left behind are in the same group; end them too.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    if os.getppid() != parent:
        # `Server.stop` would kill what ignores SIGTERM, but nobody is left to call it.
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
