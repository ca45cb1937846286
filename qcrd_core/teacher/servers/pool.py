"""Running servers of one model: their addresses, and a check that they serve the right model.

The servers are `teacher.endpoints`: a list, or a discovery file that may change during sampling. A
server that answers wrongly (another model, a refused key, a shorter context) is rejected: with an
error before sampling, with a warning later. A server that does not answer is skipped until it does,
if another server answers. Start a remote server with `--generation-config vllm`; otherwise it
applies the defaults of the model's own file. The protocol names the model, not its revision.
"""

import logging
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from qcrd_core.config.endpoints import Endpoint, read_endpoints
from qcrd_core.errors import ConfigError, SamplingError

logger = logging.getLogger(__name__)

_PROBE_SECONDS = 10.0
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_REMOTE_WAIT_SECONDS = 300.0


class NoAnswerError(SamplingError):
    """A server is unreachable, or too busy or broken to report what it serves."""


class TeacherPool:
    """Servers of one model, for one client. Its methods block and may run in threads."""

    use_proxies = True
    """Whether requests go through the proxies named in the environment."""

    def __init__(self, served_name: str) -> None:
        """Make a pool without servers; `use` adds them.

        Args:
            served_name: Model name that requests use.
        """
        self.served_name = served_name
        self.endpoints: tuple[Endpoint, ...] = ()
        """All configured servers, whether they answer or not."""
        self.absent: frozenset[str] = frozenset()
        """URLs of the servers that did not answer at the start."""
        self.tls = ssl.create_default_context()
        """Trusted certificates: the system's, or those in the file SSL_CERT_FILE."""
        self.max_model_len: int | None = None
        """The shortest context among the servers that answered at the start, in tokens."""
        self._file: Path | None = None
        self._seen: tuple[int, int] | None = None
        self._is_closed = False

    @property
    def urls(self) -> tuple[str, ...]:
        """Base URLs, each with its `/v1`."""
        return tuple(endpoint.url for endpoint in self.endpoints)

    @property
    def wait_seconds(self) -> float:
        """How long sampling waits for a server when none answers."""
        return _REMOTE_WAIT_SECONDS

    def close(self) -> None:
        """Stop using the servers."""
        self._is_closed = True

    def is_dead(self) -> bool:
        """Whether the servers have exited, so that a failure is not the fault of a request."""
        return False

    def headers(self, endpoint: Endpoint) -> dict[str, str]:
        """HTTP headers that a server requires."""
        return endpoint.headers

    def use(self, source: tuple[Endpoint, ...] | Path) -> None:
        """Use these servers, after checking that each one that answers serves the model.

        Args:
            source: A list of servers, or a file that holds one.

        Raises:
            SamplingError: If a server serves another model, or none answers.
            ConfigError: If the file is not a list of servers, or a key is absent.
        """
        if isinstance(source, Path):
            self._file, self._seen = source, _stamp(source)
            source = read_endpoints(source)
        with ThreadPoolExecutor(len(source)) as threads:
            found = list(threads.map(self._try, source))
        errors = {
            endpoint.url: error
            for endpoint, (_, error) in zip(source, found, strict=True)
            if error is not None
        }
        if len(errors) == len(source):
            raise next(iter(errors.values()))
        for error in errors.values():
            logger.warning("%s It gets no requests until it answers.", error)
        known = [length for length, _ in found if length is not None]
        self.max_model_len = min(known, default=None)
        self.absent = frozenset(errors)
        self.endpoints = source

    def reread(self) -> bool:
        """Read the discovery file again if it has changed.

        A file that cannot be read is reported once and changes nothing.

        Returns:
            Whether `endpoints` has changed.
        """
        if self._file is None:
            return False
        stamp = _stamp(self._file)
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            endpoints = read_endpoints(self._file)
        except ConfigError as error:
            logger.warning("%s The list of servers is unchanged.", error)
            return False
        is_other, self.endpoints = endpoints != self.endpoints, endpoints
        return is_other

    def bring_back(self, endpoint: Endpoint) -> Endpoint | None:
        """Check whether a new server, or one that failed, can be used.

        Args:
            endpoint: The server.

        Returns:
            Its present address; None if it does not answer yet.

        Raises:
            SamplingError: If it serves another model.
            ConfigError: If its key is absent.
        """
        try:
            # Servers other than vLLM may have no /health; a refusal still proves that they run.
            health = self._get(f"{root_of(endpoint.url)}/health", endpoint).status_code
            if health not in {200, 401, 403, 404, 405}:
                return None
            length = self.check(endpoint)
        except (NoAnswerError, httpx.HTTPError):
            return None
        if length is not None and self.max_model_len is not None and length < self.max_model_len:
            msg = (
                f"{endpoint.url} must have a context of at least {self.max_model_len} tokens, like "
                f"the servers at the start; got {length} (teacher.endpoints). Start it with "
                f"--max-model-len {self.max_model_len}."
            )
            raise SamplingError(msg)
        return endpoint

    def check(self, endpoint: Endpoint) -> int | None:
        """Check that a server serves the model.

        Args:
            endpoint: The server.

        Returns:
            Its context length in tokens, if it reports one.

        Raises:
            NoAnswerError: If it does not answer.
            SamplingError: If it serves another model, or refuses the key.
            ConfigError: If its key is absent.
        """
        url = endpoint.url
        self.headers(endpoint)  # raises for an absent key here: below, a ValueError is caught
        try:
            response = self._get(f"{url}/models", endpoint)
            models = response.raise_for_status().json()["data"]
            lengths = {model["id"]: model.get("max_model_len") for model in models}
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            raise _unusable(endpoint, error) from error
        if self.served_name not in lengths:
            msg = (
                f"{url} must serve {self.served_name!r}; got {sorted(lengths)} "
                "(teacher.endpoints). Set teacher.model to the served model, or start the server "
                f"with --served-model-name {self.served_name}."
            )
            raise SamplingError(msg)
        length: int | None = lengths[self.served_name]
        return length

    def _try(self, endpoint: Endpoint) -> tuple[int | None, NoAnswerError | None]:
        try:
            return self.check(endpoint), None
        except NoAnswerError as error:
            return None, error

    def _get(self, url: str, endpoint: Endpoint) -> httpx.Response:
        return httpx.get(
            url,
            headers=self.headers(endpoint),
            timeout=_PROBE_SECONDS,
            trust_env=self.use_proxies,
            verify=self.tls,
        )


def root_of(url: str) -> str:
    """Base URL without `/v1`, under which `/health` and `/tokenize` are found."""
    return url.removesuffix("/v1")


def _unusable(endpoint: Endpoint, error: Exception) -> SamplingError:
    """Explain why a server cannot be used: a `NoAnswerError` if the reason may pass by itself."""
    url, detail = endpoint.url, f"{_one_line(error)} (teacher.endpoints)"
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
    if status in {401, 403}:
        return SamplingError(
            f"{url} must accept the API key in {endpoint.api_key_env}; got HTTP {status} "
            "(teacher.endpoints). Export this server's key, or set api_key_env to the variable "
            "that holds it."
        )
    if _UNTRUSTED in detail:
        return SamplingError(
            f"{url} must present a certificate that this machine trusts; got {detail}. Save the "
            "certificate of its authority in a file and set SSL_CERT_FILE to that file, or correct "
            "the host name."
        )
    passes = isinstance(error, httpx.TransportError) or status == 429 or status >= 500
    return (NoAnswerError if passes else SamplingError)(
        f"{url}/models must answer like an OpenAI-compatible server; got {detail}. Check the "
        f"address, {endpoint.api_key_env}, and that the server runs."
    )


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
