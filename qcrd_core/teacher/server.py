"""Where the teacher answers: a managed local vLLM server, or servers that run already.

    with teacher_endpoints(config.teacher, prepared, scratch, log) as pool:
        ...  # requests to pool.urls; pool.recover(epoch) when they fail

Both speak the OpenAI protocol. The local server is a child process on 127.0.0.1 with a random API
key; it ends with the block. For remote servers the key is read from QCRD_API_KEY. A remote server
should run with `--generation-config vllm`, or the defaults of the model's own file are applied.
"""

import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from qcrd_core.config import TeacherSection
from qcrd_core.errors import LaunchError, SamplingError
from qcrd_core.processes import Server, tail
from qcrd_core.teacher import stale
from qcrd_core.teacher.launch import (
    find_vllm_python,
    free_port,
    server_command,
    server_environment,
)
from qcrd_core.teacher.prepare import PreparedTeacher

logger = logging.getLogger(__name__)

_PROBE_SECONDS = 10.0
_POLL_SECONDS = 0.5
_DYING_SECONDS = 30.0
_REMOTE_WAIT_SECONDS = 300.0


class TeacherPool:
    """Servers of one model. Safe to share between threads."""

    def __init__(self, served_name: str, api_key: str | None) -> None:
        """Make a pool without servers; `use` gives it some.

        Args:
            served_name: Name that requests ask for.
            api_key: Bearer key, if the servers want one.
        """
        self.urls: tuple[str, ...] = ()
        self.served_name = served_name
        self.headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.max_model_len: int | None = None
        self.use_proxies = True
        self.epoch = 0
        """How often `recover` brought the servers back; a caller hands in the one it saw."""
        self._lock = threading.Lock()
        self._is_closed = False

    def close(self) -> None:
        """End the use of the servers; requests that are still under way fail at once."""
        self._is_closed = True

    def is_dead(self) -> bool:
        """Whether the servers are known to be gone, so that retrying is in vain."""
        return False

    def recover(self, seen_epoch: int) -> None:
        """Wait until the servers answer again, or bring them back.

        Args:
            seen_epoch: `epoch` when the failing request was sent. If somebody has recovered the
                pool since, nothing is done.

        Raises:
            SamplingError: If they stay away.
        """
        with self._lock:
            if self._is_closed:
                msg = "Sampling cannot go on; the teacher has been stopped. Run again to continue."
                raise SamplingError(msg)
            if seen_epoch == self.epoch:
                self._bring_back()
                self.epoch += 1

    def use(self, urls: tuple[str, ...]) -> None:
        """Send requests to these servers from now on, once each is seen to serve the model.

        Notes the shortest context among them.

        Args:
            urls: Base URLs, each with its `/v1`.

        Raises:
            SamplingError: If a server cannot be reached or serves something else.
        """
        urls = tuple(url.rstrip("/") for url in urls)
        lengths = [self._check_one(url) for url in urls]
        known = [length for length in lengths if length is not None]
        self.max_model_len = min(known, default=None)
        self.urls = urls

    def _answer(self, urls: tuple[str, ...]) -> bool:
        try:
            return all(self._get(f"{root_of(url)}/health").status_code == 200 for url in urls)
        except httpx.HTTPError:
            return False

    def _bring_back(self) -> None:
        deadline = time.monotonic() + _REMOTE_WAIT_SECONDS
        while time.monotonic() < deadline:
            if self._answer(self.urls):
                return
            time.sleep(_POLL_SECONDS)
        msg = (
            f"teacher.endpoints must answer; got no healthy {', '.join(self.urls)} within "
            f"{_REMOTE_WAIT_SECONDS:.0f} s. Finished shards are kept: start the servers and run "
            "again."
        )
        raise SamplingError(msg)

    def _check_one(self, url: str) -> int | None:
        try:
            response = self._get(f"{url}/models")
            models = response.raise_for_status().json()["data"]
            lengths = {model["id"]: model.get("max_model_len") for model in models}
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            msg = (
                f"{url}/models must answer as an OpenAI-compatible server does; got "
                f"{_one_line(error)} (teacher.endpoints). Check the address, whether the server "
                "runs, and QCRD_API_KEY."
            )
            raise SamplingError(msg) from error
        if self.served_name not in lengths:
            msg = (
                f"{url} must serve {self.served_name!r}; it serves {sorted(lengths)} "
                "(teacher.endpoints). Set teacher.model to what is served, or start the server "
                "with --served-model-name."
            )
            raise SamplingError(msg)
        length: int | None = lengths[self.served_name]
        return length

    def _get(self, url: str) -> httpx.Response:
        return httpx.get(
            url, headers=self.headers, timeout=_PROBE_SECONDS, trust_env=self.use_proxies
        )


class ManagedPool(TeacherPool):
    """One local vLLM server that is started again when it dies, a bounded number of times."""

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
            LaunchError: If vLLM is absent, or the server dies or is not ready in time.
        """
        self._api_key = secrets.token_urlsafe(32)
        super().__init__(prepared.served_name, self._api_key)
        self.use_proxies = False
        self._python = find_vllm_python()
        self._teacher, self._prepared = teacher, prepared
        self._scratch, self._log = scratch, log
        self._num_restarts = 0
        stale.kill_leftovers(scratch)
        self._server, url = self._start()
        try:
            self._wait_until_ready(url)
        except BaseException:  # an interrupt too: no server may outlive its pool
            self.close()
            raise

    def is_dead(self) -> bool:
        """Whether the server process has ended."""
        return not self._server.is_alive()

    def close(self) -> None:
        """Stop the server and everything it started."""
        super().close()
        self._stop()

    def _stop(self) -> None:
        self._server.stop()
        stale.forget(self._scratch, self._server.pid)

    def _start(self) -> tuple[Server, str]:
        port = free_port()
        arguments = server_command(
            self._teacher, self._prepared.name, served_name=self.served_name, port=port
        )
        environment = server_environment(self._teacher, self._prepared.name, self._api_key)
        logger.info("Start vLLM | model %s | port %d | log %s", self.served_name, port, self._log)
        server = Server([str(self._python), *arguments], log=self._log, env=environment)
        stale.remember(self._scratch, server.pid)
        return server, f"http://127.0.0.1:{port}/v1"

    def _wait_until_ready(self, url: str) -> None:
        # Requests of other threads learn the address only once the server is ready: until then
        # they would find it half started, and a crash there would not count as a death.
        start, limit = time.monotonic(), self._teacher.server.start_timeout_seconds
        while not self._answer((url,)):
            waited = time.monotonic() - start
            if self._server.is_alive() and waited < limit:
                time.sleep(_POLL_SECONDS)
                continue
            what = f"was not ready within {limit:g} s" if self._server.is_alive() else "ended"
            msg = (
                f"The vLLM server must become ready; it {what}. "
                f"The end of {self._log}:\n{tail(self._log)}"
            )
            raise LaunchError(msg)
        self.use((url,))
        logger.info(
            "vLLM is ready | %.1f s | context %s tokens",
            time.monotonic() - start,
            self.max_model_len,
        )

    def _bring_back(self) -> None:
        # A server whose engine died says so by its health check and ends by itself; give it time,
        # and leave one that is merely slow alone.
        deadline = time.monotonic() + _DYING_SECONDS
        while self._server.is_alive() and time.monotonic() < deadline:
            if self._answer(self.urls):
                return
            time.sleep(_POLL_SECONDS)
        if self._num_restarts >= self._teacher.server.max_restarts:
            msg = (
                f"The vLLM server must stay alive; it died {self._num_restarts + 1} times "
                f"(teacher.server.max_restarts is {self._teacher.server.max_restarts}). Finished "
                f"shards are kept. The end of {self._log}:\n{tail(self._log)}"
            )
            raise SamplingError(msg)
        self._num_restarts += 1
        logger.warning(
            "vLLM died; start it again (%d of %d) | log %s",
            self._num_restarts,
            self._teacher.server.max_restarts,
            self._log,
        )
        self._stop()
        self._server, url = self._start()
        self._wait_until_ready(url)


@contextmanager
def teacher_endpoints(
    config: TeacherSection, prepared: PreparedTeacher, scratch: Path, log: Path
) -> Iterator[TeacherPool]:
    """Make the teacher answer for as long as the block runs.

    Args:
        config: Section of the configuration.
        prepared: The model: what to serve, or what the endpoints must serve.
        scratch: Local folder of the managed server's pid file.
        log: File that receives the managed server's output.

    Yields:
        The servers.

    Raises:
        SamplingError: If an endpoint cannot be reached or serves another model.
        LaunchError: If the managed server does not start.
    """
    if config.endpoints is not None:
        pool = TeacherPool(prepared.served_name, os.environ.get("QCRD_API_KEY"))
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


def root_of(url: str) -> str:
    """Where `/health` and `/tokenize` lie: the base URL without its `/v1`."""
    return url.removesuffix("/v1")


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
