"""Requests to the teacher: one seeded request a sample, bounded concurrency, bounded retries.

What happens to a request that fails:

- transport error, 408, 425, 429, 5xx: again, after a growing pause or the server's Retry-After;
  when the attempts are used up, or the managed server is dead, the pool is recovered and the
  request starts anew, a bounded number of times. Then SamplingError.
- 401, 403, 404: SamplingError at once, since every other request would fail likewise.
- any other status: a `Refusal`, which becomes a failed row. It is never asked again.
"""

import asyncio
import logging
import math
import random
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

from qcrd_core.config import TeacherSection
from qcrd_core.errors import SamplingError
from qcrd_core.teacher.server import TeacherPool, root_of

logger = logging.getLogger(__name__)

Prompt = str | list[dict[str, str]]
"""One text for the completions API, messages for the chat API."""

_RETRIED = frozenset({408, 425, 429})
_HOPELESS = frozenset({401, 403, 404})
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_MAX_EXHAUSTED = 2
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
class _Unavailable:
    reason: str
    is_dead: bool = False
    retry_after_seconds: float = 0.0


class TeacherClient:
    """Asynchronous client of a pool. Lives inside one event loop, as `async with`."""

    def __init__(self, pool: TeacherPool, teacher: TeacherSection, stop: tuple[str, ...]) -> None:
        """Prepare the client; the connections open with the block.

        Args:
            pool: The servers.
            teacher: Sampling parameters, retries, concurrency.
            stop: Texts at which a completion ends.
        """
        self._pool, self._teacher, self._stop = pool, teacher, stop
        self.num_retries = 0
        """Attempts after a first one, all requests together."""

    async def __aenter__(self) -> Self:
        """Open the connections."""
        self._session = aiohttp.ClientSession(
            headers=self._pool.headers,
            timeout=aiohttp.ClientTimeout(total=self._teacher.request_timeout_seconds),
            connector=aiohttp.TCPConnector(limit=self._teacher.concurrency),
            trust_env=self._pool.use_proxies,
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

    async def sample(self, prompt: Prompt, *, seed: int, lane: int) -> Completion | Refusal:
        """Draw one completion.

        Args:
            prompt: Text or messages, as `teacher.api` wants them.
            seed: Seed of this very sample.
            lane: Samples of one lane go to one server as long as it answers, so that they share
                its prefix cache.

        Returns:
            The completion, or why the server refuses.

        Raises:
            SamplingError: If no server answers after all retries and a recovery.
        """
        teacher = self._teacher
        body: dict[str, Any] = {
            "model": self._pool.served_name,
            "n": 1,
            "seed": seed,
            "temperature": teacher.sampling_temperature,
            "top_p": teacher.top_p,
            "max_tokens": teacher.max_new_tokens,
        }
        if self._stop:
            body["stop"] = list(self._stop)
        if teacher.api == "chat":
            body |= {"messages": prompt, "logprobs": True}
            path = "chat/completions"
        else:
            body |= {"prompt": prompt, "logprobs": 0}
            path = "completions"
        answer = await self._persist(path, body, lane)
        return answer if isinstance(answer, Refusal) else _completion(answer["choices"][0], answer)

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
        body = {"model": self._pool.served_name, key: prompt}
        url = f"{root_of(self._pool.urls[0])}/tokenize"
        try:
            async with self._session.post(url, json=body) as response:
                if response.status != 200:
                    return None
                content = await response.json(content_type=None)
                return int(content["count"])
        except (aiohttp.ClientError, TimeoutError) as error:
            msg = f"{url} must answer; got {_named(error)}. Check the server."
            raise SamplingError(msg) from error
        except (ValueError, KeyError, TypeError):
            return None

    async def _persist(
        self, path: str, body: dict[str, Any], lane: int
    ) -> dict[str, Any] | Refusal:
        num_exhausted = 0
        reason = ""
        while num_exhausted < _MAX_EXHAUSTED:
            epoch = self._pool.epoch
            outcome = await self._attempts(path, body, lane)
            if not isinstance(outcome, _Unavailable):
                return outcome
            # Deaths are bounded by the pool itself: teacher.server.max_restarts.
            num_exhausted += not outcome.is_dead
            reason = outcome.reason
            await asyncio.to_thread(self._pool.recover, epoch)
        msg = (
            f"The teacher must answer; got {reason} after {self._teacher.max_retries} retries, "
            "twice (teacher.max_retries). Finished shards are kept: look at the server and run "
            "again."
        )
        raise SamplingError(msg)

    async def _attempts(
        self, path: str, body: dict[str, Any], lane: int
    ) -> dict[str, Any] | Refusal | _Unavailable:
        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(self._teacher.max_retries + 1):
            urls = self._pool.urls
            outcome = await self._post(f"{urls[(lane + attempt) % len(urls)]}/{path}", body)
            if not isinstance(outcome, _Unavailable):
                return outcome
            if self._pool.is_dead():
                return _Unavailable(outcome.reason, is_dead=True)
            if attempt < self._teacher.max_retries:
                self.num_retries += 1
                wait = max(pause * random.uniform(0.5, 1.0), outcome.retry_after_seconds)
                await asyncio.sleep(wait)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        return outcome

    async def _post(
        self, url: str, body: dict[str, Any]
    ) -> dict[str, Any] | Refusal | _Unavailable:
        try:
            async with self._session.post(url, json=body) as response:
                if response.status == 200:
                    return _checked(await response.json(content_type=None))
                detail = _one_line(await response.text(errors="replace"))
                pause = _seconds(response.headers.get("Retry-After"))
                status = response.status
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError, TypeError) as error:
            return _Unavailable(_named(error))
        reason = f"HTTP {status}: {detail}"
        if status in _HOPELESS:
            msg = (
                f"{url} must accept requests; got {reason}. Check QCRD_API_KEY, teacher.endpoints "
                "and teacher.api."
            )
            raise SamplingError(msg)
        if status in _RETRIED or status >= 500:
            return _Unavailable(reason, retry_after_seconds=pause)
        return Refusal(reason)


def _checked(answer: Any) -> dict[str, Any]:
    # An answer cut short by a dying server may still be JSON; a text must be in it.
    choice = answer["choices"][0]
    if not isinstance(_text(choice), str):
        msg = "an answer without text"
        raise TypeError(msg)
    checked: dict[str, Any] = answer
    return checked


def _completion(choice: dict[str, Any], answer: dict[str, Any]) -> Completion:
    usage = answer.get("usage") or {}
    return Completion(
        text=_text(choice),
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
        return math.fsum(token["logprob"] for token in logprobs["content"] or ())
    return math.fsum(value for value in logprobs.get("token_logprobs") or () if value is not None)


def _seconds(retry_after: str | None) -> float:
    try:
        return min(max(float(retry_after or 0), 0.0), 10 * _LONGEST_PAUSE_SECONDS)
    except ValueError:
        return 0.0


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_MAX_ERROR_CHARS]


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {_one_line(str(error))}".rstrip(": ")
