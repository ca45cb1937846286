"""The teacher's servers: one managed local vLLM server, or servers that are already running.

    with teacher_endpoints(config.teacher, prepared, scratch, log) as pool:
        ...  # a `TeacherClient` of the pool

Both speak the OpenAI protocol. The local server is a child process on 127.0.0.1 with a random API
key; it stops when the block ends. `qcrd_core.teacher.servers.pool` handles running servers.
"""

import logging
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from qcrd_core.config.endpoints import Endpoint
from qcrd_core.config.teacher import TeacherSection
from qcrd_core.errors import LaunchError, SamplingError
from qcrd_core.runtime.daemons import drop_note, kill_orphans, note_server
from qcrd_core.runtime.processes import TEMPORARY, Server, tail
from qcrd_core.teacher.prepare import PreparedTeacher
from qcrd_core.teacher.servers.launch import (
    find_vllm_python,
    free_port,
    num_engines,
    server_command,
    server_environment,
)
from qcrd_core.teacher.servers.pool import TeacherPool, root_of

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_DYING_SECONDS = 30.0
# Loading 70 billion weights from a network disk and compiling takes minutes, not a quarter hour.
_START_SECONDS = 900.0
# A server that dies a fourth time within one run will not get better by another start.
_MAX_RESTARTS = 3


class ManagedPool(TeacherPool):
    """One local vLLM server, restarted up to `teacher.server.max_restarts` times if it dies."""

    use_proxies = False

    def __init__(
        self, teacher: TeacherSection, prepared: PreparedTeacher, *, scratch: Path, log: Path
    ) -> None:
        """Start the server and wait until it serves the model.

        Args:
            teacher: Section of the configuration.
            prepared: The model to serve.
            scratch: Folder of the pid file.
            log: File that receives the server's output.

        Raises:
            LaunchError: If vLLM is not installed, or the server dies or is not ready in time.
        """
        super().__init__(prepared.served_name)
        self._api_key = secrets.token_urlsafe(32)
        self._lock = threading.Lock()
        self._python = find_vllm_python()
        self._teacher, self._prepared = teacher, prepared
        self._scratch, self._log = scratch, log
        self._num_restarts = 0
        kill_orphans(scratch)
        # vLLM does not delete its sockets, so they get a folder that we delete. It is directly in
        # the temporary folder, because a socket's path may have at most 103 bytes.
        self._sockets = tempfile.TemporaryDirectory(prefix=TEMPORARY)
        self._server, endpoint = self._start()
        try:
            self._wait_until_ready(endpoint)
        except BaseException:  # also an interrupt: no server may outlive its pool
            self.close()
            raise

    @property
    def wait_seconds(self) -> float:
        """How long sampling waits for the server; each start has its own time limit."""
        return float("inf")

    def is_dead(self) -> bool:
        """Whether the server process has ended."""
        return not self._server.is_alive()

    def headers(self, endpoint: Endpoint) -> dict[str, str]:  # noqa: ARG002  (only one server)
        """HTTP headers with the random key."""
        return {"Authorization": f"Bearer {self._api_key}"}

    def close(self) -> None:
        """Stop the server and all its child processes."""
        super().close()
        self._stop()
        self._sockets.cleanup()

    def bring_back(self, endpoint: Endpoint) -> Endpoint:
        """Wait until the server answers again, or restart it.

        Args:
            endpoint: The address of the failed request. If the server has been restarted since,
                nothing is done.

        Returns:
            The server's present address.

        Raises:
            SamplingError: If the server died too often, or the pool is closed.
            LaunchError: If it does not start.
        """
        with self._lock:
            if self._is_closed:
                msg = "The teacher was stopped. Run the same command to continue sampling."
                raise SamplingError(msg)
            if self.endpoints == (endpoint,):
                self._recover(endpoint)
            return self.endpoints[0]

    def _stop(self) -> None:
        self._server.stop()
        drop_note(self._scratch, self._server.pid)

    def _start(self) -> tuple[Server, Endpoint]:
        port = free_port()
        arguments = server_command(
            self._teacher, self._prepared.name, served_name=self.served_name, port=port
        )
        environment = server_environment(self._teacher, self._prepared.name, self._api_key)
        environment["VLLM_RPC_BASE_PATH"] = self._sockets.name
        logger.info(
            "Starting vLLM | model %s | port %d | log %s", self.served_name, port, self._log
        )
        server = Server([str(self._python), *arguments], log=self._log, env=environment)
        note_server(self._scratch, server.pid)
        most = self._teacher.concurrency * num_engines(self._teacher.server)
        return server, Endpoint(url=f"http://127.0.0.1:{port}/v1", max_concurrency=most)

    def _wait_until_ready(self, endpoint: Endpoint) -> None:
        # Other threads learn the address only when the server is ready. Otherwise they would send
        # requests to a server that is still starting, and take its crash for their own failure.
        start, limit = time.monotonic(), _START_SECONDS
        while not self._answers(endpoint):
            waited = time.monotonic() - start
            if self._server.is_alive() and waited < limit:
                time.sleep(_POLL_SECONDS)
                continue
            if self._server.is_alive():
                what = f"was not ready after {limit:g} s (teacher.server.start_timeout_seconds)"
            else:
                what = "exited before it was ready"
            msg = f"vLLM {what}. Last lines of {self._log}:\n{tail(self._log)}"
            raise LaunchError(msg)
        self.use((endpoint,))
        logger.info(
            "vLLM is ready | %.1f s | context %s tokens",
            time.monotonic() - start,
            self.max_model_len,
        )

    def _answers(self, endpoint: Endpoint) -> bool:
        try:
            return self._get(f"{root_of(endpoint.url)}/health", endpoint).status_code == 200
        except httpx.HTTPError:
            return False

    def _recover(self, endpoint: Endpoint) -> None:
        # A server whose engine died fails its health check and then exits. Wait for that, so that
        # a server that is only slow is not restarted.
        deadline = time.monotonic() + _DYING_SECONDS
        while self._server.is_alive() and time.monotonic() < deadline:
            if self._answers(endpoint):
                return
            time.sleep(_POLL_SECONDS)
        if self._num_restarts >= _MAX_RESTARTS:
            msg = (
                f"vLLM died {self._num_restarts + 1} times in this run. Finished shards are kept; "
                f"run the same command to continue. Last lines of {self._log}:\n{tail(self._log)}"
            )
            raise SamplingError(msg)
        self._num_restarts += 1
        logger.warning(
            "vLLM died; restarting it (%d of %d) | log %s",
            self._num_restarts,
            _MAX_RESTARTS,
            self._log,
        )
        self._stop()
        self._server, endpoint = self._start()
        if self._is_closed:  # closed during the restart: nothing else would stop this server
            self._stop()
        self._wait_until_ready(endpoint)


@contextmanager
def teacher_endpoints(
    config: TeacherSection, prepared: PreparedTeacher, scratch: Path, log: Path
) -> Iterator[TeacherPool]:
    """Provide servers for the teacher while the block runs.

    Args:
        config: Section of the configuration.
        prepared: The model that is served here, or that the endpoints must serve.
        scratch: Local folder of the managed server's pid file.
        log: File that receives the managed server's output.

    Yields:
        The servers.

    Raises:
        SamplingError: If an endpoint serves another model, or none answers.
        ConfigError: If the discovery file is not a list of servers, or a key is absent.
        LaunchError: If the managed server does not start.
    """
    if config.endpoints is not None:
        pool = TeacherPool(prepared.served_name)
        pool.use(config.endpoints)
        try:
            yield pool
        finally:
            pool.close()
        return
    managed = ManagedPool(config, prepared, scratch=scratch, log=log)
    try:
        yield managed
    finally:
        managed.close()
