"""Client of the teacher's OpenAI-compatible servers: one request for all samples of a question.

In a request for n samples, the first uses the given seed, the second the next, and so on, as in
vLLM: drawn together or one by one, the texts are the same. One request instead of n saves time,
because HTTP costs several times as much as our own work per sample.

`replies` says what an answer means, and `dialect` what a server takes of a request.

orjson writes and reads the JSON, because our own work per sample must cost far less than decoding.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self
from urllib.request import getproxies

import aiohttp
import orjson
from yarl import URL

from qcrd_core.config.endpoints import Endpoint
from qcrd_core.config.teacher import TeacherSection
from qcrd_core.data.answers import AnswerSpec
from qcrd_core.data.structured import response_format
from qcrd_core.errors import SamplingError
from qcrd_core.teacher.generation import TOP_P
from qcrd_core.teacher.servers.dialect import REFUSED, USUAL, Dialect
from qcrd_core.teacher.servers.pool import TeacherPool, root_of
from qcrd_core.teacher.servers.replies import Reply, Unavailable, one_line, read_reply

logger = logging.getLogger(__name__)

Prompt = str | list[dict[str, str]]
"""A text for the completions API, messages for the chat API."""

# uvicorn closes an idle connection after 5 s; ours must close earlier, or a request may be lost.
_KEEP_ALIVE_SECONDS = 4.0
# All missing samples of a question, at the speed of a loaded server; a slower one is down.
_REQUEST_SECONDS = 600.0


@dataclass(frozen=True, eq=False)
class Target:
    """URL and headers of one server, made once for all its requests."""

    endpoint: Endpoint
    url: URL
    headers: Mapping[str, str]


class TeacherClient:
    """Asynchronous client of a pool's servers. Lives inside one event loop, as `async with`."""

    def __init__(
        self,
        pool: TeacherPool,
        teacher: TeacherSection,
        answer: AnswerSpec,
        *,
        on_dialect: Callable[[str, Dialect], None] | None = None,
    ) -> None:
        """Prepare the client; connections open when the block starts.

        Args:
            pool: The servers.
            teacher: Sampling parameters and time limit.
            answer: The data set's answers: texts at which a completion ends, unless `teacher.stop`
                names others, and the schema for `teacher.structured_output`.
            on_dialect: Called with a server's URL and dialect whenever it turns out to differ.
        """
        self._pool, self._teacher = pool, teacher
        self._stop = answer.stop if teacher.stop is None else teacher.stop
        self._format = response_format(answer) if teacher.structured_output else None
        self._on_dialect = on_dialect
        self._dialects: dict[str, Dialect] = {}
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
        body |= {name: getattr(teacher, name) for name in teacher.changed("top_k", "min_p")}
        if self._format is not None:
            body["response_format"] = self._format
        body |= teacher.extra_body
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

    async def ask(self, target: Target, body: bytes, seed: int, num_samples: int) -> Reply:
        """Ask one server for completions of one prompt, in the dialect that it takes.

        Args:
            target: The server.
            body: From `body`.
            seed: Seed of the first sample; each further sample has the next.
            num_samples: Samples to ask for.

        Returns:
            Completions in the order of their seeds, at least one; a server that cannot draw several
            returns fewer than asked. Otherwise why the server refused or did not answer.
        """
        url = target.endpoint.url
        while True:
            dialect = self._dialects.get(url, USUAL)
            data = dialect.write(body, num_samples, seed)
            try:
                async with self._session.post(
                    target.url, data=data, headers=target.headers
                ) as answer:
                    status, content, headers = answer.status, await answer.read(), answer.headers
            except aiohttp.ClientConnectorError as error:
                return Unavailable(_named(error), is_absent=True)
            except (aiohttp.ClientError, TimeoutError) as error:
                return Unavailable(_named(error))
            if status not in REFUSED or not self._has_learnt(url, dialect, content):
                break
        reply = read_reply(
            status,
            content,
            content_type=headers.get("Content-Type", ""),
            retry_after=headers.get("Retry-After"),
        )
        if isinstance(reply, Unavailable):
            return _explained(reply, target)
        return reply[:num_samples] if isinstance(reply, tuple) else reply

    def _has_learnt(self, url: str, used: Dialect, content: bytes) -> bool:
        """Whether a refused request should be sent again in another dialect."""
        known = self._dialects.get(url, USUAL)
        if known != used:
            return True  # another request has met the same refusal since
        learnt = used.after(content)
        if learnt is None:
            return False
        self._dialects[url] = learnt
        (new,) = set(learnt.differences()) - set(used.differences())
        logger.warning("%s refused a key of the request; from now on %s", url, new)
        if self._on_dialect is not None:
            self._on_dialect(url, learnt)
        return True

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


def _explained(reply: Unavailable, target: Target) -> Unavailable:
    """Say what to correct if a server will refuse every other request too."""
    key = target.endpoint.api_key_env
    if reply.is_unpaid:
        reason = (
            f"The account of the key in {key} has no money left at {target.endpoint.url}: "
            f"{reply.reason}."
        )
        return replace(reply, reason=reason)
    if reply.is_hopeless:
        reason = (
            f"{target.url} rejected the request with {reply.reason}. Check {key}, "
            "teacher.endpoints and teacher.api."
        )
        return replace(reply, reason=reason)
    return reply


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(str(error))}".rstrip(": ")
