"""Servers of one model that run already: who they are, and whether they serve what they should.

They are `teacher.endpoints`, a list or a discovery file that may change meanwhile. A server that
answers wrongly (another model, no such key, a shorter context) is refused: before sampling with an
error, later with a warning. One that does not answer is left out until it does, as long as another
one answers. A remote server should run with `--generation-config vllm`, or the defaults of the
model's own file are applied. The protocol names the model, not its revision.
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
    """A server cannot be reached, or is too busy or broken to say what it serves."""


class TeacherPool:
    """Servers of one model. One client uses it; its methods block and may run in threads."""

    use_proxies = True
    """Whether requests go through the proxies that the environment names."""

    def __init__(self, served_name: str) -> None:
        """Make a pool without servers; `use` gives it some.

        Args:
            served_name: Name that requests ask for.
        """
        self.served_name = served_name
        self.endpoints: tuple[Endpoint, ...] = ()
        """Servers that are to be used, whether they answer or not."""
        self.absent: frozenset[str] = frozenset()
        """URLs of those that did not answer at the start."""
        self.tls = ssl.create_default_context()
        """Which certificates are trusted: the system's, or those in the file SSL_CERT_FILE."""
        self.max_model_len: int | None = None
        """The shortest context among those that answered at the start, tokens."""
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
        """End the use of the servers."""
        self._is_closed = True

    def is_dead(self) -> bool:
        """Whether the servers are known to be gone, so that a failure says nothing of a request."""
        return False

    def headers(self, endpoint: Endpoint) -> dict[str, str]:
        """HTTP headers that a server wants."""
        return endpoint.headers

    def use(self, source: tuple[Endpoint, ...] | Path) -> None:
        """Take these servers, once each that answers is seen to serve the model.

        Args:
            source: A list, or the file that holds one.

        Raises:
            SamplingError: If a server serves something else, or none answers.
            ConfigError: If the file is no list of servers, or a key is absent.
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
            logger.warning("%s It is left out until it answers.", error)
        known = [length for length, _ in found if length is not None]
        self.max_model_len = min(known, default=None)
        self.absent = frozenset(errors)
        self.endpoints = source

    def reread(self) -> bool:
        """Read the discovery file again if it has changed.

        A file that cannot be read is said so once, and changes nothing.

        Returns:
            Whether `endpoints` is another list now.
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
            logger.warning("%s The servers stay as they were.", error)
            return False
        is_other, self.endpoints = endpoints != self.endpoints, endpoints
        return is_other

    def bring_back(self, endpoint: Endpoint) -> Endpoint | None:
        """See whether a server that failed, or a new one, can be used.

        Args:
            endpoint: The server.

        Returns:
            Where it answers now; None as long as it does not.

        Raises:
            SamplingError: If it serves something else.
            ConfigError: If its key is absent.
        """
        try:
            # Servers of other makers have no /health.
            health = self._get(f"{root_of(endpoint.url)}/health", endpoint).status_code
            if health not in {200, 401, 403, 404, 405}:
                return None
            length = self.check(endpoint)
        except (NoAnswerError, httpx.HTTPError):
            return None
        if length is not None and self.max_model_len is not None and length < self.max_model_len:
            msg = (
                f"{endpoint.url} must have a context of at least {self.max_model_len} tokens, as "
                f"those that were there first; it has {length} (teacher.endpoints). Start it with "
                "--max-model-len."
            )
            raise SamplingError(msg)
        return endpoint

    def check(self, endpoint: Endpoint) -> int | None:
        """See whether a server serves the model.

        Args:
            endpoint: The server.

        Returns:
            Its context length in tokens, if it says one.

        Raises:
            NoAnswerError: If it does not answer.
            SamplingError: If it serves something else, or refuses the key.
            ConfigError: If its key is absent.
        """
        url = endpoint.url
        self.headers(endpoint)  # an absent key is a mistake, and a ConfigError is a ValueError
        try:
            response = self._get(f"{url}/models", endpoint)
            models = response.raise_for_status().json()["data"]
            lengths = {model["id"]: model.get("max_model_len") for model in models}
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            raise _unusable(endpoint, error) from error
        if self.served_name not in lengths:
            msg = (
                f"{url} must serve {self.served_name!r}; it serves {sorted(lengths)} "
                "(teacher.endpoints). Set teacher.model to what is served, or start the server "
                "with --served-model-name."
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
    """Where `/health` and `/tokenize` lie: the base URL without its `/v1`."""
    return url.removesuffix("/v1")


def _unusable(endpoint: Endpoint, error: Exception) -> SamplingError:
    """Why a server cannot be used, a `NoAnswerError` where another day may be better."""
    url, detail = endpoint.url, f"{_one_line(error)} (teacher.endpoints)"
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
    if status in {401, 403}:
        return SamplingError(
            f"{url} must accept the API key in {endpoint.api_key_env}; got HTTP {status} "
            "(teacher.endpoints). Export the key of this server, or name the variable that holds "
            "it: api_key_env."
        )
    if _UNTRUSTED in detail:
        return SamplingError(
            f"{url} must show a certificate that this machine trusts; got {detail}. Put the "
            "certificate of its authority into a file and name that in SSL_CERT_FILE, or correct "
            "the host's name."
        )
    passes = isinstance(error, httpx.TransportError) or status == 429 or status >= 500
    return (NoAnswerError if passes else SamplingError)(
        f"{url}/models must answer as an OpenAI-compatible server does; got {detail}. Check the "
        f"address, whether the server runs, and {endpoint.api_key_env}."
    )


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
