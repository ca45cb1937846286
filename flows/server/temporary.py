"""The Prefect server of one `qcrd run` or `qcrd bench`.

    server = TemporaryServer.start()      starts in the background
    with server.used():                   waits until it answers
        distill(config)

If PREFECT_API_URL or a Prefect profile names a server, that server is used. Otherwise one is
started on the loopback, which ends with this process, even after kill -9. Prefect would start such
a server itself, but only when a flow begins, and a killed run would leave it running.

Starting takes three seconds, so the server starts before this process imports Prefect, which alone
can read profiles. If a profile names a server, ours exits by itself.
"""

import atexit
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.server.api import PrefectApi
from flows.server.local import HOST
from qcrd_core.runtime.processes import TEMPORARY, Server
from qcrd_core.teacher.servers.launch import free_port

_ROOT = Path(__file__).parents[2]
_APP = ("--factory", "flows.server.app:create_temporary_prefect_app", "--app-dir", str(_ROOT))
# No web pages and no scheduler, as in the server that Prefect starts for a script.
_ENVIRONMENT = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    # No page of a browser needs it. Prefect's default lets all of them read its answers.
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "null",
}


class TemporaryServer:
    """A server that may still be starting, or no server if the environment names one."""

    def __init__(self, server: Server | None, port: int = 0, password: str = "") -> None:
        """Wrap a started server; see `start`."""
        self._server, self._password = server, password
        self._url = f"http://{HOST}:{port}"

    @classmethod
    def start(cls) -> "TemporaryServer":
        """Start a server in the background, unless the environment names one."""
        # Prefect reads these when it is imported.
        os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "qcrd_core")
        os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        os.environ.setdefault("DO_NOT_TRACK", "1")
        if os.environ.get("PREFECT_API_URL"):
            return cls(None)
        port = free_port()
        address = ("--host", HOST, "--port", str(port))
        command = (sys.executable, "-m", "uvicorn", *_APP, *address, "--log-level", "error")
        # The log is not in the run's scratch, where a command that fails should leave nothing.
        file, log = tempfile.mkstemp(prefix=f"{TEMPORARY}prefect-", suffix=".log")
        os.close(file)
        atexit.register(Path(log).unlink, missing_ok=True)
        password = f"qcrd:{secrets.token_urlsafe(32)}"
        environment = {**_ENVIRONMENT, "PREFECT_SERVER_API_AUTH_STRING": password}
        server = Server(command, log=Path(log), env=environment)
        # This runs after Prefect's exit handlers, which would wait long for a stopped server.
        atexit.register(server.stop)
        return cls(server, port, password)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let Prefect use the server inside the block.

        Raises:
            LaunchError: If the server exits, or does not answer in time.
        """
        from prefect.settings import (
            PREFECT_API_AUTH_STRING,
            PREFECT_API_URL,
            PREFECT_UI_URL,
            temporary_settings,
        )

        if self._server is None or PREFECT_API_URL.value():
            yield
            return
        api = f"{self._url}/api"
        PrefectApi(api, self._password).wait(self._server.is_alive, self._server.log)
        settings = {
            PREFECT_API_URL: api,
            PREFECT_API_AUTH_STRING: self._password,
            PREFECT_UI_URL: "",  # it serves no web pages that Prefect could link to
        }
        with temporary_settings(settings):
            yield
