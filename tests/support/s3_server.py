"""An S3 server on the loopback: moto's, which can be restarted and fails requests on demand.

What it holds outlives a restart, as on a server with a disk: moto keeps it in this process.
"""

import random
import socket
import struct
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

_Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

FAULTS = ("500 InternalError", "503 SlowDown", "reset before", "reset after")
"""A reset closes the connection before the server saw the request, or after it has done it."""
_TOO_SKEWED = "403 RequestTimeTooSkewed"


class S3Server:
    """The server; requests for anything but S3 reach moto's other services."""

    def __init__(
        self,
        *,
        failing: float = 0.0,
        seed: int = 0,
        refusal: str | None = None,
        clock_ahead: timedelta = timedelta(0),
    ) -> None:
        """Start it.

        Args:
            failing: Share of the requests that get one of `FAULTS`.
            seed: Of the faults.
            refusal: `<status> <code>` that answers each request, in the form of S3's errors.
            clock_ahead: How far its clock is from that of its clients. It refuses requests that are
                a quarter of an hour off, as S3 does.
        """
        self.failing, self.refusal, self.clock_ahead = failing, refusal, clock_ahead
        self.faults: Counter[str] = Counter()
        self.num_requests = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._application: _Application = DomainDispatcherApplication(create_backend_app)
        self._port = 0
        self.start()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._port}"

    @property
    def options(self) -> str:
        """What a store's URL says of the server."""
        return f"endpoint_override={self.address}&scheme=http&region=us-east-1"

    def new_store(self) -> str:
        """URL of a store in a bucket of its own, which the first write makes."""
        bucket = f"bucket-{uuid.uuid4().hex}"
        return f"s3://{bucket}/some/prefix?{self.options}&allow_bucket_creation=true"

    def start(self) -> None:
        """Listen, on the port it had before."""
        self._server = make_server(
            "127.0.0.1", self._port, self._answer, threaded=True, request_handler=_Handler
        )
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def restart(self, seconds: float) -> None:
        """Be away for a while."""
        self.stop()
        time.sleep(seconds)
        self.start()

    def _answer(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        with self._lock:
            self.num_requests += 1
            fails = self._random.random() < self.failing
            fault = self._random.choice(FAULTS) if fails else None
            self.faults.update(filter(None, [fault]))
        refusal = self.refusal or (_TOO_SKEWED if self._is_skewed(environ) else None)
        if fault is None and refusal is None:
            return self._application(environ, start_response)
        if fault == "reset after":
            b"".join(self._application(environ, lambda *_: lambda _: None))
        else:
            # A body that is not read would be taken for the next request.
            is_chunked = environ.get("wsgi.input_terminated")
            length = -1 if is_chunked else int(environ.get("CONTENT_LENGTH") or 0)
            environ["wsgi.input"].read(length)
        if fault is not None and fault.startswith("reset"):
            # Without waiting, its end is a reset.
            linger = struct.pack("ii", 1, 0)
            environ["werkzeug.socket"].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            raise ConnectionResetError
        status, code = (fault or refusal or "").split()
        now = format_datetime(datetime.now(UTC) + self.clock_ahead, usegmt=True)
        start_response(f"{status} {code}", [("Content-Type", "application/xml"), ("Date", now)])
        text = f"<Error><Code>{code}</Code><Message>As the test wants it.</Message></Error>"
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [text.encode()]

    def _is_skewed(self, environ: dict[str, Any]) -> bool:
        signed = environ.get("HTTP_X_AMZ_DATE")
        if signed is None:
            return False
        at = datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return abs(datetime.now(UTC) + self.clock_ahead - at) > timedelta(minutes=15)


class _Handler(MotoRequestHandler):
    def log_request(self, *_: Any) -> None:
        """Stay silent."""

    def connection_dropped(self, *_: Any) -> None:
        """Close it, so that the client need not wait for an answer."""
        self.close_connection = True


@contextmanager
def s3_server(**settings: Any) -> Iterator[S3Server]:
    """Run an `S3Server` for as long as the block runs."""
    server = S3Server(**settings)
    try:
        yield server
    finally:
        server.stop()
