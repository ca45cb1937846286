"""Fake teacher servers, below the HTTP client: real requests in, real JSON or trouble out."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx

from qcrd_core.config.endpoints import Endpoint
from qcrd_core.ids import derive_seed
from qcrd_core.teacher.servers.pool import TeacherPool
from tests.simulation.world import World

_TROUBLES = (*("refused", "lost", "garbled", "busy", "error", "few") * 4, "hung")


class Servers:
    """All servers of a night. A completion depends on nothing but its prompt and seed."""

    def __init__(self, world: World, urls: tuple[str, ...]) -> None:
        random, self._world = world.random, world
        self._speed = {url: random.choice((0.2, 0.5, 2.0)) for url in urls}
        self.share = random.choice((0.0, 0.05, 0.3))
        """Share of requests that meet a trouble, until `until`."""
        self.until = random.expovariate(1 / 60)
        self.down = {url: self._away(random) for url in urls if random.random() < 0.3}
        self.twice: list[int] = []
        """Seeds of samples that were asked for although the store held them."""

    @staticmethod
    def _away(random: Any) -> tuple[float, float]:
        start = random.expovariate(1 / 20)
        return start, start + random.expovariate(1 / 20)

    def is_down(self, url: str) -> bool:
        start, end = self.down.get(url, (0.0, 0.0))
        return start <= self._world.now < end

    async def answer(self, url: str, data: bytes) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers for one request."""
        random, asked = self._world.random, json.loads(data)
        seeds = range(asked["seed"], asked["seed"] + asked["n"])
        self.twice += [seed for seed in seeds if seed in self._world.process.stored]
        if self.is_down(url):
            raise aiohttp.ClientConnectorError(
                SimpleNamespace(host=url, port=80, ssl=True), OSError("refused")
            )
        is_troubled = self._world.now < self.until and random.random() < self.share
        trouble = random.choice(_TROUBLES) if is_troubled else None
        await asyncio.sleep(self._speed[url] * random.uniform(0.5, 2.0))
        if trouble == "hung":
            await asyncio.sleep(600.0)
            raise TimeoutError
        if trouble in {"lost", "refused"} or self.is_down(url):
            raise aiohttp.ServerDisconnectedError
        if trouble == "garbled":
            return 200, b'{"choices": [{"te', {}
        if trouble == "busy":
            return 429, b"busy", {"Retry-After": str(random.randint(0, 20))}
        if trouble == "error":
            return 500, b"worker died", {}
        return _complete(asked, seeds[: 1 if trouble == "few" else None])


def _complete(asked: dict[str, Any], seeds: range) -> tuple[int, bytes, dict[str, str]]:
    prompt = asked["prompt"]
    if derive_seed("refused", prompt, seeds[0]) % 40 == 0:
        return 400, b"this prompt is refused for ever", {}
    choices = []
    for index, seed in enumerate(seeds):
        number = derive_seed(prompt, seed) % 3
        text = "Because." if number == 2 and seed % 5 == 0 else f"Because. The answer is {number}."
        logprobs = {"token_logprobs": [-0.5, -0.25]}
        choices.append(
            {"index": index, "text": text, "finish_reason": "stop", "logprobs": logprobs}
        )
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    return 200, json.dumps({"choices": choices, "usage": usage}).encode(), {}


class Session:
    """What the client uses of `aiohttp.ClientSession`."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    def post(self, url: Any, *, data: bytes, headers: Any) -> "_Answer":
        del headers
        return _Answer(self._servers, str(url).rpartition("/")[0], data)

    async def close(self) -> None:
        pass


class _Answer:
    def __init__(self, servers: Servers, url: str, data: bytes) -> None:
        self._coming = servers.answer(url, data)

    async def __aenter__(self) -> "_Answer":
        self.status, self._content, self.headers = await self._coming
        return self

    async def __aexit__(self, *_: Any) -> None:
        pass

    async def read(self) -> bytes:
        return self._content


class Pool(TeacherPool):
    """The real pool over the fake servers."""

    def __init__(self, servers: Servers, endpoints: tuple[Endpoint, ...], name: str) -> None:
        super().__init__(name)
        self._servers, self.endpoints = servers, endpoints
        down = [endpoint.url for endpoint in endpoints if servers.is_down(endpoint.url)]
        self.absent = frozenset(down if len(down) < len(endpoints) else ())

    def _get(self, url: str, endpoint: Endpoint) -> httpx.Response:
        if self._servers.is_down(endpoint.url):
            msg = "refused"
            raise httpx.ConnectError(msg)
        content = {"data": [{"id": self.served_name}]}
        return httpx.Response(200, json=content, request=httpx.Request("GET", url))
