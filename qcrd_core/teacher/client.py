"""Requests to the teacher: one seeded request a sample, as an OpenAI-compatible server wants it.

What comes of a request:

- 200: a `Completion`.
- transport error, 408, 425, 429, 5xx, 401, 403, 404: `Unavailable`: the server has not answered.
- any other status: a `Refusal`, which becomes a failed row. It is never asked again.

A body is made once a question, and JSON is written and read by orjson: our own work on a sample
must stay far below the engine's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.request import getproxies

import aiohttp
import orjson
from yarl import URL

from qcrd_core.config_endpoints import Endpoint
from qcrd_core.config_models import TeacherSection
from qcrd_core.errors import SamplingError
from qcrd_core.teacher.pool import TeacherPool, root_of

Prompt = str | list[dict[str, str]]
"""One text for the completions API, messages for the chat API."""

_BUSY = frozenset({425, 429, 503})
_HOPELESS = frozenset({401, 403, 404})
_RETRIED = _BUSY | {408}
# Shorter than the 5 s after which uvicorn closes an idle connection, perhaps under a request.
_KEEP_ALIVE_SECONDS = 4.0
_LONGEST_WAIT_SECONDS = 300.0
_MAX_ERROR_CHARS = 300


@dataclass(frozen=True)
class Completion:
    """What the teacher wrote for one prompt and seed."""

    text: str
    finish_reason: str | None
    num_prompt_tokens: int | None
    num_tokens: int | None
    cumulative_logprob: float | None
    """Nats; None if the server returns no log-probabilities."""


@dataclass(frozen=True)
class Refusal:
    """The server will never answer this request."""

    error: str
    """Why, one line."""


@dataclass(frozen=True)
class Unavailable:
    """The server has not answered this request; another one may."""

    reason: str
    """Why, one line."""
    is_busy: bool = False
    """It is alive and has too much to do."""
    is_absent: bool = False
    """It accepts no connection."""
    is_hopeless: bool = False
    """It will answer no other request either: wrong key, address or model."""
    retry_after_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Target:
    """Where requests to one server go, made once for all of them."""

    endpoint: Endpoint
    url: URL
    headers: Mapping[str, str]


class TeacherClient:
    """Asynchronous client of a pool. Lives inside one event loop, as `async with`."""

    def __init__(self, pool: TeacherPool, teacher: TeacherSection, stop: tuple[str, ...]) -> None:
        """Prepare the client; the connections open with the block.

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
            timeout=aiohttp.ClientTimeout(total=self._teacher.request_timeout_seconds),
            # The dispatcher bounds the requests in flight.
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS, ssl=self._pool.tls
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            # Looking for a proxy costs every request as much as writing it.
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
        """Write a request but for its seed.

        Args:
            prompt: Text or messages, as `teacher.api` wants them.

        Returns:
            A JSON object that lacks its last key and its end.
        """
        teacher = self._teacher
        body: dict[str, Any] = {
            "model": self._pool.served_name,
            "n": 1,
            "temperature": teacher.sampling_temperature,
            "top_p": teacher.top_p,
            "max_tokens": teacher.max_new_tokens,
        }
        if self._stop:
            body["stop"] = list(self._stop)
        if teacher.api == "chat":
            body |= {"messages": prompt, "logprobs": True}
        else:
            body |= {"prompt": prompt, "logprobs": 0}
        return orjson.dumps(body)[:-1] + b',"seed":'

    def target(self, endpoint: Endpoint) -> Target:
        """Prepare requests to a server.

        Args:
            endpoint: The server.

        Returns:
            URL and headers, the key included.

        Raises:
            ConfigError: If the key is absent.
        """
        return Target(endpoint, URL(f"{endpoint.url}/{self._path}"), self._headers(endpoint))

    async def ask(
        self, target: Target, body: bytes, seed: int
    ) -> Completion | Refusal | Unavailable:
        """Ask one server for one completion, once.

        Args:
            target: The server.
            body: From `body`.
            seed: Seed of this very sample.

        Returns:
            The completion, why the server refuses, or why there is no answer.
        """
        data = b"%b%d}" % (body, seed)
        try:
            async with self._session.post(target.url, data=data, headers=target.headers) as answer:
                status, content = answer.status, await answer.read()
                pause = answer.headers.get("Retry-After")
            if status == 200:
                return _completion(orjson.loads(content))
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
                f"{target.url} must accept requests; got {reason}. Check "
                f"{target.endpoint.api_key_env}, "
                "teacher.endpoints and teacher.api."
            )
            return Unavailable(reason, is_hopeless=True)
        if status in _RETRIED or status >= 500:
            return Unavailable(reason, is_busy=status in _BUSY, retry_after_seconds=_seconds(pause))
        return Refusal(reason)

    async def count_tokens(self, prompt: Prompt) -> int | None:
        """Ask how many tokens the model reads for a prompt, template included.

        Args:
            prompt: Text or messages.

        Returns:
            Tokens; None if the server offers no `/tokenize`.

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
            msg = f"{url} must answer; got {_named(error)}. Check the server."
            raise SamplingError(msg) from error
        except (ValueError, KeyError, TypeError):
            return None

    def _headers(self, endpoint: Endpoint) -> dict[str, str]:
        return {"Content-Type": "application/json", **self._pool.headers(endpoint)}


def _completion(answer: Any) -> Completion:
    # An answer cut short by a dying server may still be JSON; a text must be in it.
    choice = answer["choices"][0]
    text = _text(choice)
    if not isinstance(text, str):
        msg = "an answer without text"
        raise TypeError(msg)
    usage = answer.get("usage") or {}
    return Completion(
        text=text,
        finish_reason=choice.get("finish_reason"),
        num_prompt_tokens=usage.get("prompt_tokens"),
        num_tokens=usage.get("completion_tokens"),
        cumulative_logprob=_cumulative_logprob(choice.get("logprobs")),
    )


def _text(choice: dict[str, Any]) -> Any:
    # A chat model that wrote nothing at all has null content.
    return choice["text"] if "text" in choice else choice["message"]["content"] or ""


def _cumulative_logprob(logprobs: dict[str, Any] | None) -> float | None:
    if logprobs is None:
        return None
    if "content" in logprobs:
        return math.fsum([token["logprob"] for token in logprobs["content"] or ()])
    return math.fsum([value for value in logprobs.get("token_logprobs") or () if value is not None])


def _seconds(retry_after: str | None) -> float:
    try:
        return min(max(float(retry_after or 0), 0.0), _LONGEST_WAIT_SECONDS)
    except ValueError:
        return 0.0


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_MAX_ERROR_CHARS]


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {_one_line(str(error))}".rstrip(": ")
