"""A process that calls one function of the user's, within limits of time and memory.

    process = VerifierProcess(Call("sql_answers:canonical", timeout_seconds=5, max_memory_mib=2048))
    process.ask("SELECT 1", "How many?")      Verdict(answer="[[1]]", error=None)

It lives as long as its parent, because starting one per text would cost more than reading it. A
text on which it hangs, crashes or fails has no answer, and the next text finds a process that
works. It guards against mistakes, not against malice: the function may read and write whatever this
user may.
"""

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from qcrd_core.errors import ConfigError
from qcrd_core.runtime.verifier_worker import OUT_OF_MEMORY

_START_SECONDS = 60.0
"""An import may load a large library on a busy machine."""
_WORKER = Path(__file__).with_name("verifier_worker.py")
# A numerical library reserves memory per thread, which counts towards the limit.
_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "PYTHONDONTWRITEBYTECODE": "1",  # the module's folder is the user's
}


class Verdict(NamedTuple):
    """What is known of one text."""

    answer: str | None
    """Canonical; None if the text holds no answer."""
    error: str | None = None
    """Why nobody could say, in one line; None if the reader did its work."""


@dataclass(frozen=True)
class Call:
    """A function and its limits."""

    function: str
    """`module:function`, called with a text and its question; it returns a text or None."""
    timeout_seconds: float
    """Longest time per text, by the clock."""
    max_memory_mib: int
    """Largest address space of the process, MiB."""
    folder: Path | None = None
    """Where the module is looked for first; then come the current folder and Python's path."""
    source_hash: str | None = None
    """SHA-256 of the module's file; None accepts any."""


class _EndedError(Exception):
    """The process ended, or must be ended, before it replied."""

    def __init__(self, reason: str, *, may_be_worn_out: bool = True) -> None:
        super().__init__(reason)
        self.may_be_worn_out = may_be_worn_out


class VerifierProcess:
    """The process, started when it is first needed. Threads may share it."""

    def __init__(self, call: Call) -> None:
        """Prepare; nothing is started."""
        self._call = call
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._num_read = 0
        self._source_hash = ""

    def source_hash(self) -> str:
        """SHA-256 of the module's file, which is imported if it is not yet.

        Raises:
            ConfigError: If it cannot be imported, or is not the expected one.
        """
        with self._lock:
            self._started()
            return self._source_hash

    def ask(self, text: str, question: str) -> Verdict:
        """Call the function.

        Args:
            text: What may hold an answer.
            question: The question, as models read it.

        Returns:
            The function's text, or None with the reason if it failed.

        Raises:
            ConfigError: If the function cannot be imported, or its module has changed.
        """
        with self._lock:
            while True:
                process = self._started()
                was_used = self._num_read > 0
                try:
                    verdict = self._ask(process, text, question)
                except _EndedError as error:
                    self._end()
                    # Texts before this one may be the cause, so it gets a process without a past.
                    if was_used and error.may_be_worn_out:
                        continue
                    return Verdict(None, str(error))
                except BaseException:
                    self._end()  # its reply would be taken for that to the next text
                    raise
                self._num_read += 1
                return verdict

    def close(self) -> None:
        """End the process. The next text starts another one."""
        with self._lock:
            self._end()

    def _ask(self, process: "subprocess.Popen[bytes]", text: str, question: str) -> Verdict:
        assert process.stdin is not None
        request = json.dumps({"text": text, "question": question}).encode() + b"\n"
        try:
            process.stdin.write(request)
            process.stdin.flush()
        except BrokenPipeError:
            raise _EndedError(self._death(process)) from None
        reply = self._read(process, self._call.timeout_seconds)
        return Verdict(reply.get("answer"), reply.get("error"))

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is not None:
            return self._process
        call = self._call
        named = [] if call.folder is None else [call.folder]
        folders = list(dict.fromkeys(str(folder) for folder in (*named, Path.cwd())))
        limits = (str(call.max_memory_mib), str(call.timeout_seconds))
        self._process = process = subprocess.Popen(
            # -P: the worker's folder is ours, and must not hide a module of the user's.
            [sys.executable, "-P", str(_WORKER), call.function, *limits, *folders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,
        )
        try:
            reply = self._read(process, _START_SECONDS)
        except _EndedError as error:
            reply = {"problem": str(error)}
        except BaseException:
            self._end()
            raise
        if "problem" in reply:
            self._end()
            raise self._not_imported(reply["problem"], folders)
        self._source_hash = reply["source_hash"]
        if call.source_hash not in {None, self._source_hash}:
            self._end()
            msg = (
                f"The verifier {call.function} has changed since answers were read with it: the "
                "hash of its file is not answer.verifier.source_hash. Restore the file, or start "
                "another run, which reads all answers again."
            )
            raise ConfigError(msg)
        return process

    def _not_imported(self, reason: str, folders: list[str]) -> ConfigError:
        return ConfigError(
            f"answer.verifier must name a function that can be imported; got {self._call.function} "
            f"({reason}; searched {', '.join(folders)} and Python's path). Correct the name, or set"
            " answer.verifier.folder."
        )

    def _read(self, process: "subprocess.Popen[bytes]", seconds: float) -> dict[str, Any]:
        assert process.stdout is not None
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        received = bytearray()
        while not received.endswith(b"\n"):
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                reason = f"it took longer than {seconds:g} s"
                raise _EndedError(reason, may_be_worn_out=False)
            part = os.read(process.stdout.fileno(), 65_536)
            if not part:
                raise _EndedError(self._death(process))
            received += part
        reply: dict[str, Any] = json.loads(received)
        return reply

    def _death(self, process: "subprocess.Popen[bytes]") -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        code = process.returncode
        if code == OUT_OF_MEMORY:
            return f"it needed more than {self._call.max_memory_mib} MiB"
        if code is not None and code < 0:
            return f"its process died of {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"

    def _end(self) -> None:
        process, self._process, self._num_read = self._process, None, 0
        if process is None:
            return
        # The group: what the function has started must not outlive it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@functools.cache
def verifier_process(call: Call) -> VerifierProcess:
    """The one process of this program that makes such calls."""
    process = VerifierProcess(call)
    atexit.register(process.close)
    return process
