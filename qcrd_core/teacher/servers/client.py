"""Client of the teacher's OpenAI-compatible servers: one request for all samples of a question.

In a request for n samples, the first uses the given seed, the second the next, and so on, as in
vLLM: drawn together or one by one, the texts are the same. One request instead of n saves time,
because HTTP costs several times as much as our own work per sample.

The outcome of a request:

- 200: one `Completion` per sample.
- Transport error, 408, 425, 429, 5xx, 401, 403 or 404: `Unavailable`. The server has not answered.
- Any other status: a `Refusal`, which becomes a failed row and is not tried again.

orjson writes and reads the JSON, because our own work per sample must cost far less than decoding.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from types import TracebackType
from typing import Any, Self
from urllib.request import getproxies

import aiohttp
import orjson
from yarl import URL

from qcrd_core.config.endpoints import Endpoint
from qcrd_core.config.models import TeacherSection
from qcrd_core.errors import SamplingError
from qcrd_core.teacher.generation import TOP_P
from qcrd_core.teacher.servers.pool import TeacherPool, root_of

Prompt = str | list[dict[str, str]]
"""A text for the completions API, messages for the chat API."""

_BUSY = frozenset({425, 429, 503})
_HOPELESS = frozenset({401, 403, 404})
_RETRIED = _BUSY | {408}
# uvicorn closes an idle connection after 5 s; ours must close earlier, or a request may be lost.
_KEEP_ALIVE_SECONDS = 4.0
_LONGEST_WAIT_SECONDS = 300.0
_MAX_ERROR_CHARS = 300
# All missing samples of a question, at the speed of a loaded server; a slower one is down.
_REQUEST_SECONDS = 600.0


@dataclass(frozen=True)
class Completion:
    """What the teacher wrote for one prompt and seed."""

    text: str
    finish_reason: str | None
    num_prompt_tokens: int | None
    num_tokens: int | None
    """None if the server does not count the tokens of each sample."""
    cumulative_logprob: float | None
    """Nats; None if the server returns no log-probabilities."""


@dataclass(frozen=True)
class Refusal:
    """The server will never answer this request."""

    error: str
    """Why, one line."""


@dataclass(frozen=True)
class Unavailable:
    """The server did not answer this request; another server may."""

    reason: str
    """Why, one line."""
    is_busy: bool = False
    """Whether the server is alive but overloaded."""
    is_absent: bool = False
    """Whether the server accepts no connections."""
    is_hopeless: bool = False
    """Whether it will refuse every other request too: wrong key, address or model."""
    retry_after_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Target:
    """URL and headers of one server, made once for all its requests."""

    endpoint: Endpoint
    url: URL
    headers: Mapping[str, str]


class TeacherClient:
    """Asynchronous client of a pool's servers. Lives inside one event loop, as `async with`."""

    def __init__(self, pool: TeacherPool, teacher: TeacherSection, stop: tuple[str, ...]) -> None:
        """Prepare the client; connections open when the block starts.

        Args:
            pool: The servers.
            teacher: Sampling parameters and time limit.
            stop: Texts at which a completion ends.
        """
        self._pool, self._teacher, self._stop = pool, teacher, stop
        self._path = "chat/completions" if teacher.api == "chat" else "completions"

    async def __aenter__(self) -> Self:
        """Open the connections."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS),
            # The dispatcher limits the requests in flight.
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS, ssl=self._pool.tls
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            # aiohttp looks for a proxy on every request, which costs as much as writing it.
            trust_env=self._pool.use_proxies and bool(getproxies()),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._session.close()

    def body(self, prompt: Prompt) -> bytes:
        """Write a request without its number of samples and its seed.

        Args:
            prompt: Text or messages, as `teacher.api` requires.

        Returns:
            A JSON object without its last two keys and the closing brace; `ask` appends them.
        """
        teacher = self._teacher
        body: dict[str, Any] = {
            "model": self._pool.served_name,
            "temperature": teacher.sampling_temperature,
            "top_p": TOP_P,
            "max_tokens": teacher.max_new_tokens,
        }
        if self._stop:
            body["stop"] = list(self._stop)
        if teacher.api == "chat":
            body |= {"messages": prompt, "logprobs": True}
        else:
            body |= {"prompt": prompt, "logprobs": 0}
        return orjson.dumps(body)[:-1]

    def target(self, endpoint: Endpoint) -> Target:
        """Prepare requests to a server.

        Args:
            endpoint: The server.

        Returns:
            URL and headers, including the API key.

        Raises:
            ConfigError: If the key is absent.
        """
        return Target(endpoint, URL(f"{endpoint.url}/{self._path}"), self._headers(endpoint))

    async def ask(
        self, target: Target, body: bytes, seed: int, num_samples: int
    ) -> tuple[Completion, ...] | Refusal | Unavailable:
        """Ask one server for completions of one prompt, once.

        Args:
            target: The server.
            body: From `body`.
            seed: Seed of the first sample; each further sample has the next.
            num_samples: Samples to ask for.

        Returns:
            Completions in the order of their seeds, at least one; a server that cannot draw several
            returns fewer than asked. Otherwise why the server refused or did not answer.
        """
        data = b'%b,"n":%d,"seed":%d}' % (body, num_samples, seed)
        try:
            async with self._session.post(target.url, data=data, headers=target.headers) as answer:
                status, content = answer.status, await answer.read()
                pause = answer.headers.get("Retry-After")
            if status == 200:
                return _completions(orjson.loads(content))[:num_samples]
        except aiohttp.ClientConnectorError as error:
            return Unavailable(_named(error), is_absent=True)
        except (
            aiohttp.ClientError,
            TimeoutError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
        ) as error:
            return Unavailable(_named(error))
        reason = f"HTTP {status}: {_one_line(content.decode(errors='replace'))}"
        if status in _HOPELESS:
            reason = (
                f"{target.url} rejected the request with {reason}. Check "
                f"{target.endpoint.api_key_env}, teacher.endpoints and teacher.api."
            )
            return Unavailable(reason, is_hopeless=True)
        if status in _RETRIED or status >= 500:
            return Unavailable(reason, is_busy=status in _BUSY, retry_after_seconds=_seconds(pause))
        return Refusal(reason)

    async def count_tokens(self, prompt: Prompt) -> int | None:
        """Ask how many tokens a prompt has, including the chat template.

        Args:
            prompt: Text or messages.

        Returns:
            Tokens; None if the server has no `/tokenize`.

        Raises:
            SamplingError: If the server cannot be reached.
        """
        key = "messages" if self._teacher.api == "chat" else "prompt"
        body = orjson.dumps({"model": self._pool.served_name, key: prompt})
        endpoint = next(one for one in self._pool.endpoints if one.url not in self._pool.absent)
        url = f"{root_of(endpoint.url)}/tokenize"
        try:
            async with self._session.post(
                url, data=body, headers=self._headers(endpoint)
            ) as answer:
                if answer.status != 200:
                    return None
                return int(orjson.loads(await answer.read())["count"])
        except (aiohttp.ClientError, TimeoutError) as error:
            msg = f"{url} did not answer: {_named(error)}. Check that the server runs."
            raise SamplingError(msg) from error
        except (ValueError, KeyError, TypeError):
            return None

    def _headers(self, endpoint: Endpoint) -> dict[str, str]:
        return {"Content-Type": "application/json", **self._pool.headers(endpoint)}


def _completions(answer: Any) -> tuple[Completion, ...]:
    # An answer that a dying server cut short may still parse as JSON, so check that it has a text.
    choices, usage = answer["choices"], answer.get("usage") or {}
    # The n-th choice belongs to the n-th seed. Choices after a gap are dropped and asked again.
    by_index = {choice.get("index", 0): choice for choice in choices}
    ordered = [by_index[index] for index in takewhile(by_index.__contains__, count())]
    found = tuple(_completion(choice, usage, is_alone=len(choices) == 1) for choice in ordered)
    if not found:
        msg = "the answer has no first choice"
        raise LookupError(msg)
    return found


def _completion(choice: dict[str, Any], usage: Mapping[str, int], *, is_alone: bool) -> Completion:
    text = _text(choice)
    if not isinstance(text, str):
        msg = "the answer has no text"
        raise TypeError(msg)
    logprobs = _logprobs(choice)
    num_tokens = usage.get("completion_tokens") if is_alone else None
    if num_tokens is None and logprobs is not None:
        num_tokens = len(logprobs)
    return Completion(
        text=text,
        finish_reason=choice.get("finish_reason"),
        num_prompt_tokens=usage.get("prompt_tokens"),
        num_tokens=num_tokens,
        cumulative_logprob=None if logprobs is None else math.fsum(filter(None, logprobs)),
    )


def _text(choice: dict[str, Any]) -> Any:
    # The content is null if a chat model wrote nothing at all.
    return choice["text"] if "text" in choice else choice["message"]["content"] or ""


def _logprobs(choice: dict[str, Any]) -> list[float | None] | None:
    """Log-probability of each sampled token, in nats; None if the server returns none at all."""
    found = choice.get("logprobs")
    if found is None:
        return None
    if "content" in found:
        return [token["logprob"] for token in found["content"] or ()] or None
    return found.get("token_logprobs") or None


def _seconds(retry_after: str | None) -> float:
    try:
        return min(max(float(retry_after or 0), 0.0), _LONGEST_WAIT_SECONDS)
    except ValueError:
        return 0.0


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_MAX_ERROR_CHARS]


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {_one_line(str(error))}".rstrip(": ")
