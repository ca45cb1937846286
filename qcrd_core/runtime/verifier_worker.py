"""Calls one function of the user's, text by text, in a process of limited memory.

    python -P verifier_worker.py <module:function> <MiB> <seconds> <folder> ...

`qcrd_core.runtime.verifier` starts this file. It imports only the standard library before the
user's module, so it starts in milliseconds. The folders come first in the module search path.

Lines of JSON. The first one written is `{"source_hash": ...}` or `{"problem": ...}`. Then each line
read is `{"text": ..., "question": ...}`, and its reply `{"answer": ...}` or `{"error": ...}`; the
process ends after a text that needed too much memory. What the function prints is thrown away,
because only replies may reach the parent.
"""

import hashlib
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

MAX_CHARS = 65_536
"""Longest canonical text: it is stored with every row and compared as a whole."""
OUT_OF_MEMORY = 77
"""Exit code of a process that reached its limit of memory."""
_ORPHAN_SECONDS = 2.0
_MAX_REASON = 200


def main(name: str, mebibytes: int, seconds: float, folders: list[str]) -> None:
    """Import the function, then answer until the parent closes the pipe."""
    requests, replies = _private_pipes()
    resource.setrlimit(resource.RLIMIT_AS, (mebibytes * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.path[:0] = folders
    try:
        function, source_hash = _load(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (process boundary)
        _send(replies, {"problem": _reason(error)})
        return
    _send(replies, {"source_hash": source_hash})
    for line in requests:
        request = json.loads(line)
        # The parent ends a call that takes too long. The alarm ends it if the parent is dead.
        signal.setitimer(signal.ITIMER_REAL, seconds + _ORPHAN_SECONDS)
        try:
            reply = _call(function, request["text"], request["question"])
        except MemoryError:
            # Earlier texts may have leaked it. The parent sees the exit code and starts afresh.
            sys.exit(OUT_OF_MEMORY)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(replies, reply)


def _private_pipes() -> tuple[IO[str], IO[str]]:
    """The parent's pipes, out of the reach of code that reads or prints."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with Path(os.devnull).open("r+b") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    return requests, replies


def _load(name: str) -> tuple[Callable[[str, str], Any], str]:
    module_name, _, function_name = name.partition(":")
    module = importlib.import_module(module_name)
    function: Callable[[str, str], Any] = getattr(module, function_name)
    content = Path(module.__file__).read_bytes() if module.__file__ else b""
    return function, hashlib.sha256(content).hexdigest()


def _call(function: Callable[[str, str], Any], text: str, question: str) -> dict[str, str | None]:
    try:
        answer = function(text, question)
        if answer is None or answer == "":
            return {"answer": None}
        if not isinstance(answer, str):
            return {"error": f"it returned {type(answer).__name__}, not a text or None"}
        if len(answer) > MAX_CHARS:
            return {"error": f"it returned more than {MAX_CHARS:,} characters"}
        answer.encode()  # half of a surrogate pair cannot be stored
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  (process boundary)
        return {"error": _reason(error)}
    return {"answer": answer}


def _reason(error: BaseException) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text.encode(errors="replace").decode()[:_MAX_REASON]


def _send(replies: IO[str], reply: dict[str, str | None]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
