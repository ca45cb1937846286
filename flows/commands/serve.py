"""The command `qcrd serve`: a student behind an OpenAI-compatible server.

qcrd serve .qcrd/quickstart/runs/RUN/student
qcrd serve quickstart --store .qcrd/quickstart        follows the champion
"""

import contextlib
import logging
import os
import secrets
import shlex
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from flows.commands.options import BatchSize, NumWaiting, Port
from qcrd_core.errors import ConfigError

if TYPE_CHECKING:  # imported when needed: `qcrd --help` should not wait for them
    from starlette.applications import Starlette

    from qcrd_core.serving.batches import Batches
    from qcrd_core.serving.capture import Capture
    from qcrd_core.serving.escalation import Escalation
    from qcrd_core.serving.source import StudentSource
    from qcrd_core.serving.student import ServedStudent

_SCRATCH = Path(".qcrd/scratch")
_FOLLOW_SECONDS = 5.0
# A batch of long rationales on a slow CPU; whoever still waits then gets an error.
_STOP_SECONDS = 60


def serve(
    model: str,
    *,
    store: str | None = None,
    host: str = "127.0.0.1",
    port: Port = 8100,
    key_file: Path = _SCRATCH / "serve.key",
    batch_size: BatchSize = 64,
    max_waiting: NumWaiting = 1024,
    teacher: str | None = None,
    target_precision: float | None = None,
    capture: bool = False,
) -> None:
    """Answer questions over HTTP with a student, as OpenAI's API does. Stop it with Ctrl-C.

    The prompt, the form of answers and the kind of inference are the student's own. A model of a
    store is answered by its champion, also after `qcrd promote` and `qcrd rollback`.

    Args:
        model: Folder or URL of a student. With --store: name of a model, MODEL/VERSION, or a run.
        store: Folder or URL of the store that has the model or the run.
        host: Address to listen on. By default only this machine reaches the server.
        port: Port to listen on.
        key_file: File with the key that clients send. It is made with a random key if absent.
        batch_size: Most questions answered at once.
        max_waiting: Most questions that wait. Further ones are refused with status 429.
        teacher: Base URL, with its /v1, of a running server of the teacher. It is asked, with the
            prompt of the run, when the student is not sure enough. Its key is read from
            QCRD_API_KEY.
        target_precision: With --teacher: share of right answers, for example 0.95, that those keep
            which the student gives alone.
        capture: Keep each new question with its answer in the store that --store names, as table
            `captured` of the data set, at most 100,000.
    """
    _check_extras(store, teacher, target_precision, has_capture=capture)
    key = read_key(key_file)
    with bind(host, port) as address:
        _prepare_process()
        from qcrd_core.serving.batches import Batches
        from qcrd_core.serving.capture import Capture
        from qcrd_core.serving.metrics import ServerMetrics
        from qcrd_core.serving.source import find_student
        from qcrd_core.serving.student import ServedStudent
        from qcrd_core.store.store import Store

        opened = None if store is None else Store(store, _SCRATCH)
        source = find_student(model, opened, _SCRATCH)
        student = ServedStudent.load(source.folder, source.label, batch_size=batch_size)
        metrics = ServerMetrics()
        batches = Batches(student, batch_size=batch_size, max_waiting=max_waiting, metrics=metrics)
        escalation = kept = None
        if teacher is not None and target_precision is not None:
            escalation = _escalate(student, teacher, target_precision)
        if opened is not None and capture:
            opened.check_writable()
            kept = Capture(opened, metrics)
        app = _application(batches, source, key, escalation=escalation, capture=kept)
        _describe(student.label, source.model, f"http://{_in_url(host)}:{port}/v1", key_file)
        if kept is not None:
            print(
                "\nEach new question is kept in the store, with its answer (--capture).", flush=True
            )
        _listen(app, address)


def _application(
    batches: "Batches",
    source: "StudentSource",
    key: str,
    *,
    escalation: "Escalation | None",
    capture: "Capture | None",
) -> "Starlette":
    """Build the application, whose student follows its champion."""
    from qcrd_core.serving.app import ServerOptions, make_app
    from qcrd_core.serving.source import follow

    def check(student: "ServedStudent") -> None:
        if escalation is not None:
            escalation.check(student)
        if capture is not None:
            if student.metadata.source == "chat":
                msg = (
                    f"--capture keeps single questions; {student.label} answers conversations. "
                    "Leave it out."
                )
                raise ConfigError(msg)
            capture.open(student.metadata.dataset)

    check(batches.student)
    return make_app(
        batches,
        ServerOptions(source.model, key),
        escalation=escalation,
        capture=capture,
        background=lambda: follow(batches, source, seconds=_FOLLOW_SECONDS, check=check),
    )


def _check_extras(
    store: str | None, teacher: str | None, precision: float | None, *, has_capture: bool
) -> None:
    if (teacher is None) != (precision is None):
        msg = "--teacher and --target-precision must be given together; got one of them."
        raise ConfigError(msg)
    if precision is not None and not 0 < precision < 1:
        msg = f"--target-precision must be between 0 and 1, as in 0.95; got {precision}."
        raise ConfigError(msg)
    if has_capture and store is None:
        msg = "--capture keeps questions in a store, so it needs --store; got none."
        raise ConfigError(msg)


def _prepare_process() -> None:
    """Set what torch reads once, when it is loaded, and where the server logs."""
    from qcrd_core.runtime.openmp import passive_openmp

    os.environ.update(passive_openmp())
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("qcrd_core.serving").setLevel(logging.INFO)


def _escalate(student: "ServedStudent", url: str, precision: float) -> "Escalation":
    """Connect the teacher, and say when it is asked."""
    from pydantic import ValidationError

    from qcrd_core.config.endpoints import Endpoint
    from qcrd_core.config.reading import explain
    from qcrd_core.serving.escalation import Escalation, Teacher, TeacherRun, surest_point

    point = surest_point(student, precision)
    try:
        endpoint = Endpoint(url=url)
    except ValidationError as error:
        raise ConfigError(explain(error, "--teacher")) from error
    client = Teacher(endpoint, TeacherRun.of(student))
    calibration, low, high = student.metadata.calibration, point.interval.low, point.interval.high
    assert calibration is not None  # it has a point
    least = calibration.confidence(point.min_raw_confidence, has_answer=True)
    share = point.num_answers / calibration.num_questions
    print(f"  teacher         {client.name} at {url}, below confidence {least:.2f}")
    print(
        f"  student alone   {share:.0%} of the validation questions, {point.num_correct:,} of "
        f"{point.num_answers:,} right (95% interval {low:.1%} to {high:.1%})"
    )
    return Escalation(client, precision)


def read_key(file: Path) -> str:
    """Read the key from its file, which only this user can read. Make it if it is missing.

    Args:
        file: The file.

    Returns:
        The key.

    Raises:
        ConfigError: If the file cannot be read or made, or holds no key.
    """
    from qcrd_core.config.files import expand_user, read_ordinary, write_private

    file = expand_user(str(file))
    try:
        with contextlib.suppress(FileExistsError):
            write_private(file, secrets.token_urlsafe(32) + "\n")
        key = read_ordinary(file).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"--key-file must be a file that can be read or made; got {file} ({error})."
        raise ConfigError(msg) from error
    if not key or not key.isprintable() or " " in key:
        msg = f"--key-file must hold one key without spaces; got none in {file}. Delete the file."
        raise ConfigError(msg)
    return key


def bind(host: str, port: int) -> socket.socket:
    """Take an address before the student is loaded. Nobody can connect before the server listens.

    Args:
        host: Name or address.
        port: Port.

    Returns:
        A bound socket.

    Raises:
        ConfigError: If the address is in use or not of this machine.
    """
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.ExitStack() as stack:
            address = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            address.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            address.bind(place)
            stack.pop_all()  # the caller closes it
    except OSError as error:
        msg = (
            f"--host and --port must be a free address of this machine; got {host} and {port} "
            f"({error.strerror or error}). Choose another."
        )
        raise ConfigError(msg) from error
    return address


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _describe(label: str, model: str, url: str, key_file: Path) -> None:
    print(f"  student         {label}")
    print(f"  address         {url}")
    print(f"  key             in {key_file}, readable by this user only")
    print("\nAsk it:")
    header = f'"Authorization: Bearer $(cat {shlex.quote(str(key_file))})"'
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "QUESTION"}}]}}'
    print(f"curl {url}/chat/completions -H {header} -d {shlex.quote(body)}", flush=True)


def _listen(app: "Starlette", address: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that have begun are answered first."""
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
    )
    # uvicorn raises the signal again when it has stopped; by then there is nothing left to stop.
    signal.signal(signal.SIGTERM, lambda *_: None)
    server.run(sockets=[address])
    print("Stopped.")
