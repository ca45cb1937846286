"""The HTTP server of a student.

    POST /v1/chat/completions, /v1/completions      need the key
    POST /v1/feedback                               needs the key, and `Capture`
    GET  /v1/models, /metrics                       need the key
    GET  /health                                    for load balancers, open

Every error is an OpenAI error object. Nothing that a request says is logged; only `Capture` keeps
questions, if it is given.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from qcrd_core.errors import DataError, StoreError
from qcrd_core.serving.batches import Batches, BusyError
from qcrd_core.serving.capture import Capture
from qcrd_core.serving.escalation import Escalation
from qcrd_core.serving.feedback import read_feedback, take_feedback
from qcrd_core.serving.metrics import ServerMetrics
from qcrd_core.serving.requests import Asked, Content, Kind, RequestError, read_request
from qcrd_core.serving.responses import Reply, completion, stream

_RETRY_SECONDS = "1"
_CREATED = int(time.time())

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class ServerOptions:
    """Name, key and limits of a server."""

    model: str
    """Name under which the student is served."""
    key: str
    """What clients send as `Authorization: Bearer KEY`."""
    max_body_bytes: int = 262_144
    """Longest body of a request."""


def make_app(
    batches: Batches,
    options: ServerOptions,
    *,
    escalation: Escalation | None = None,
    capture: Capture | None = None,
    background: Callable[[], Awaitable[None]] | None = None,
) -> Starlette:
    """Build the application.

    Args:
        batches: The student's queue; it is answered while the application runs.
        options: Name, key, limits.
        escalation: Asks the teacher when the student is not sure; None never does.
        capture: Keeps the questions; None keeps none.
        background: Runs beside the server, for example `follow`.

    Returns:
        A Starlette application.
    """
    server = _Server(batches, options, escalation, capture)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            if escalation is not None:
                await stack.enter_async_context(escalation)
            tasks = [asyncio.create_task(batches.run())]
            if capture is not None:
                tasks.append(asyncio.create_task(capture.run()))
            if background is not None:
                tasks.append(asyncio.ensure_future(background()))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    return Starlette(
        routes=[
            Route("/v1/chat/completions", server.completions("chat.completion"), methods=["POST"]),
            Route("/v1/completions", server.completions("text_completion"), methods=["POST"]),
            Route("/v1/feedback", server.guarded(server.feedback), methods=["POST"]),
            Route("/v1/models", server.guarded(server.models)),
            Route("/metrics", server.guarded(server.show_metrics)),
            Route("/health", server.health),
        ],
        exception_handlers={HTTPException: _refused, Exception: _failed},
        lifespan=lifespan,
    )


class _Server:
    """Handlers of the routes."""

    def __init__(
        self,
        batches: Batches,
        options: ServerOptions,
        escalation: Escalation | None,
        capture: Capture | None,
    ) -> None:
        self._batches, self._options = batches, options
        self._escalation, self._capture = escalation, capture
        self._metrics: ServerMetrics = batches.metrics

    def guarded(self, handler: Handler) -> Handler:
        """Answer only with the key, turn errors into error objects, and count."""

        async def guard(request: Request) -> Response:
            status = 500  # of whatever else is raised; `_failed` answers it
            try:
                self._check_key(request)
                response = await handler(request)
                status = response.status_code
            except RequestError as error:
                response, status = _error(error), error.status
            finally:
                self._metrics.requests.labels(request.url.path, str(status)).inc()
            return response

        return guard

    def completions(self, kind: Kind) -> Handler:
        """Handler of one of the two APIs that answer questions."""

        async def answer(request: Request) -> Response:
            start = time.monotonic()
            asked = read_request(
                await self._body(request),
                kind,
                self._options.model,
                takes_turns=self._batches.student.metadata.source == "chat",
            )
            replies = await asyncio.gather(*map(self._reply, asked.contents))
            self._metrics.seconds.observe(time.monotonic() - start)
            return self._respond(asked, replies)

        return self.guarded(answer)

    async def models(self, _: Request) -> Response:
        """The one model."""
        model = {"id": self._options.model, "object": "model", "created": _CREATED}
        return JSONResponse({"object": "list", "data": [{**model, "owned_by": "qcrd"}]})

    async def feedback(self, request: Request) -> Response:
        """Keep the right answer of a question that was answered."""
        if self._capture is None:
            msg = "This server keeps no questions. It does with `qcrd serve --capture`."
            raise RequestError(404, msg)
        sent = read_feedback(await self._body(request))
        try:
            kept = await take_feedback(sent, self._batches.student.metadata, self._capture)
        except StoreError as error:
            raise RequestError(503, str(error)) from error
        return JSONResponse(kept)

    async def show_metrics(self, _: Request) -> Response:
        """Counters for Prometheus."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def health(self, _: Request) -> Response:
        """That the server answers; a student is loaded before it listens."""
        return JSONResponse({"status": "ok", "student": self._batches.student.label})

    def _respond(self, asked: Asked, replies: list[Reply]) -> Response:
        if asked.is_stream:
            return StreamingResponse(
                stream(asked, replies, self._options.model), media_type="text/event-stream"
            )
        body = completion(asked, replies, self._options.model)
        return Response(body, media_type="application/json")

    async def _reply(self, content: Content) -> Reply:
        try:
            answered = await self._batches.ask(content)
        except BusyError:
            msg = "Too many questions wait for the student. Try again in a second."
            raise RequestError(429, msg, code="rate_limit_exceeded") from None
        except DataError as error:
            raise RequestError(400, str(error), param="messages") from error
        reply = Reply.of(answered)
        if self._escalation is not None:
            reply = await self._escalation.final(answered)
        self._metrics.answers.labels(reply.answered_by).inc()
        self._metrics.tokens.inc(answered.reply.num_tokens)
        if reply.answer is None:
            self._metrics.unreadable.inc()
        if self._capture is not None:
            reply = replace(reply, question_id=await self._capture.keep(answered, reply))
        return reply

    def _check_key(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if not secrets.compare_digest(given, self._options.key.encode()):
            msg = "The request needs the header `Authorization: Bearer KEY` with this server's key."
            raise RequestError(401, msg, code="invalid_api_key")

    async def _body(self, request: Request) -> bytes:
        """The body, of which no more is read than allowed."""
        limit, body = self._options.max_body_bytes, bytearray()
        with contextlib.suppress(ClientDisconnect):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    msg = f"The body of a request must have at most {limit:,} bytes."
                    raise RequestError(413, msg, code="request_too_large")
        return bytes(body)


def _error(error: RequestError) -> Response:
    headers = {"Retry-After": _RETRY_SECONDS} if error.status == 429 else None
    if error.status == 401:
        headers = {"WWW-Authenticate": "Bearer"}
    return JSONResponse(error.content, error.status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    """Unknown paths and methods."""
    assert isinstance(error, HTTPException)
    path = f"{request.method} {request.url.path}"[:200]
    return _error(RequestError(error.status_code, f"This server does not answer {path}."))


async def _failed(_: Request, error: Exception) -> Response:
    """A fault of ours; the log has the traceback."""
    name = type(error).__name__
    return _error(
        RequestError(500, f"The student could not answer ({name}); see the server's log.")
    )
