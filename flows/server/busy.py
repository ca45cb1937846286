"""Let requests write to SQLite one after the other, and ask again while it is busy.

SQLite lets one transaction write at a time. Two dozen requests that write at once hold all of
Prefect's connections and wait for each other until they time out after a minute. And a transaction
that has read before it writes cannot wait for its turn: it fails, and Prefect answers 503 after
undoing it. Prefect's own client asks again; its web pages show an error instead.
"""

import asyncio
import random
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ATTEMPTS = 8
_FIRST_PAUSE_SECONDS = 0.05
# Requests of Prefect that read although they are POST.
_READS = ("/filter", "/count", "/paginate", "/history")


class WriteInTurn:
    """ASGI middleware for an application on SQLite."""

    def __init__(self, app: "ASGIApp") -> None:
        """Wrap an application."""
        self._app = app
        self._turn = asyncio.Lock()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request. One that is answered with 503 is repeated for about six seconds."""
        if (
            scope["type"] != "http"
            or scope["method"] in {"GET", "HEAD", "OPTIONS"}
            or scope["path"].endswith(_READS)
        ):
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        for attempt in range(_ATTEMPTS):
            answer = _Answer(send, is_last=attempt == _ATTEMPTS - 1)
            try:
                async with self._turn:
                    await self._app(dict(scope), _replay(body, receive), answer)
            except Exception:
                # Starlette raises the cause after it has answered 503.
                if not answer.is_busy:
                    raise
            if not answer.is_busy:
                return
            # At random, so that requests that met once do not meet again.
            await asyncio.sleep(_FIRST_PAUSE_SECONDS * 2**attempt * random.uniform(0.5, 1.5))


class _Answer:
    """Passes an answer on, unless it says busy and another attempt follows."""

    def __init__(self, send: "Send", *, is_last: bool) -> None:
        self._send, self._is_last = send, is_last
        self.is_busy = False

    async def __call__(self, message: "Message") -> None:
        if message["type"] == "http.response.start" and not self._is_last:
            self.is_busy = message["status"] == HTTPStatus.SERVICE_UNAVAILABLE
        if not self.is_busy:
            await self._send(message)


async def _read(receive: "Receive") -> "list[Message]":
    """All messages of a request's body."""
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    return messages


def _replay(messages: "list[Message]", receive: "Receive") -> "Receive":
    left = iter(messages)

    async def again() -> "Message":
        return next(left, None) or await receive()

    return again
