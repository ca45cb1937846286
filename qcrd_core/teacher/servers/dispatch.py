"""Routes requests to servers, within what each can sustain.

All servers take requests from one queue when they have room, so each works at its own speed. Near
the end of a run, a slow server gets a request only if it can finish before the others have done the
rest. One request asks for all samples of a question, if the server can draw that many. A sample
depends only on model, prompt and seed, so any server may draw it, in any company. When something
fails:

- A server returns fewer samples than asked, or no token count: from then on it is asked for one
  sample at a time. A request that it refuses, or fails twice, is split into single samples,
  because their number may be the reason.
- Transport error, timeout, 408, 409, 425, 429 or 5xx: the request goes to another server, or to the
  same one after a growing pause. More than `_MAX_RETRIES` failures of one request raise a
  SamplingError. A busy server and a server that died do not count.
- Three failures in a row, a refused connection, or waits ten times as long as elsewhere: the server
  is drained. It gets no work, and its requests go elsewhere. It is probed after growing pauses and
  returns with one request at a time.
- A server refuses the key or the model, or the key's account has no money left: it is drained too.
  If no other server is left, a SamplingError is raised; without money it is kept in `ended_by`
  instead, and requests that wait are given up, so that everything that was paid for is stored.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from qcrd_core.config.endpoints import Endpoint
from qcrd_core.config.teacher import TeacherSection
from qcrd_core.errors import QcrdError, SamplingError
from qcrd_core.teacher.servers.choices import Completion, Refusal
from qcrd_core.teacher.servers.client import TeacherClient
from qcrd_core.teacher.servers.pool import TeacherPool
from qcrd_core.teacher.servers.replies import Unavailable
from qcrd_core.teacher.servers.server_state import Batch, Request, ServerState

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_FAILURES_IN_A_ROW = 3
# Attempts after the first. With the pauses between them they outlast a server's restart.
_MAX_RETRIES = 5
_FAILURES_TOGETHER = 2
"""Failures of a request for several samples, after which each sample is asked for alone."""
_STALL_SECONDS = 30.0
_STALL_FACTOR = 10
_WATCH_SECONDS = 1.0


class Dispatcher:
    """Sends requests to the servers of a pool. Lives inside one event loop, as `async with`."""

    def __init__(
        self,
        pool: TeacherPool,
        teacher: TeacherSection,
        client: TeacherClient,
        *,
        is_spent: Callable[[], bool] = lambda: False,
        is_last: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare to dispatch.

        Args:
            pool: The servers.
            teacher: Concurrency, retries, time limit.
            client: Sends the requests.
            is_spent: Whether the budget is used up; waiting requests are then given up.
            is_last: Whether no more requests will follow those that wait now.
        """
        self._pool, self._teacher, self._client = pool, teacher, client
        self._is_spent, self._is_last = is_spent, is_last
        self.servers: list[ServerState] = []
        """All servers, including those that have left the discovery file."""
        self._requests: deque[Request] = deque()
        self._again: deque[Request] = deque()
        self._batches: set[Batch] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_open = time.monotonic()
        self._busy_since: float | None = None
        self.ended_by: SamplingError | None = None
        """Why no more requests are sent, although samples are missing and money is left."""

    @property
    def is_over(self) -> bool:
        """Whether no more requests are sent."""
        return self.ended_by is not None or self._is_spent()

    def end(self, error: SamplingError) -> None:
        """Send no more requests. Those in flight are still answered and delivered.

        Args:
            error: Why; kept in `ended_by`.
        """
        self.ended_by = self.ended_by or error

    async def __aenter__(self) -> Self:
        """Open all servers and start to watch them."""
        self._meet(self._pool.endpoints)
        self._start(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cancel everything in flight."""
        tasks = [*self._tasks, *(task for server in self.servers for task in server.tasks)]
        for task in tasks:
            task.cancel()
        if kind is not None:
            self._pool.close()  # a thread that brings a server back must end now
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def num_servers(self) -> int:
        """Servers that get work now."""
        return sum(server.is_open for server in self.servers)

    async def sample(self, requests: Sequence[Request]) -> None:
        """Send requests and wait until each sample has been delivered or given up.

        When this call is cancelled, it withdraws the requests that have not been sent.

        Args:
            requests: The samples to draw.

        Raises:
            SamplingError: If all servers stop answering, or one request fails too often.
        """
        num_samples = sum(request.num_samples for request in requests)
        batch = Batch(num_samples, asyncio.get_running_loop().create_future())
        for request in requests:
            request.batch = batch
        self._requests.extend(requests)
        self._batches.add(batch)
        try:
            self._pump()
            await batch.done
        finally:
            self._batches.discard(batch)
            if batch.num_left:
                self._take_back(batch)

    def _pump(self) -> None:
        if self.is_over:
            self._give_up_waiting()
            return
        now = time.monotonic()
        while found := self._match(now):
            server, request = found
            server.begin(now, request.num_samples)
            task = asyncio.create_task(self._ask(server, request))
            server.tasks.add(task)
            task.add_done_callback(server.tasks.discard)
            task.add_done_callback(self._end_with)

    def _match(self, now: float) -> tuple[ServerState, Request] | None:
        room = [server for server in self.servers if server.has_room(now)]
        for server in sorted(room, key=lambda server: server.num_in_flight / server.limit.value):
            request = self._next(server, now)
            if request is not None:
                return server, request
        return None

    def _comes_too_late(self, server: ServerState, now: float) -> bool:
        """Whether faster servers will empty the queue before this one answers one more request.

        By Little's law, a server answers its requests in flight divided by the seconds per request.
        A server that has been silent for longer than one request, or pauses, is not counted.
        """
        num_done = sum(
            len(other.tasks) * (server.seconds / other.seconds - 1)
            for other in self.servers
            if other.is_open
            and 0 < other.seconds < server.seconds
            and now - other.active_at < server.seconds
            and now >= other.paused_until
        )
        return len(self._requests) < num_done

    def _next(self, server: ServerState, now: float) -> Request | None:
        for request in self._again:
            is_free = request.failed_at is not server or not self._has_others(server)
            if is_free and server.fits(request.num_samples):
                self._again.remove(request)
                return self._cut(server, request)
        if not self._requests or not server.fits(self._requests[0].num_samples):
            return None
        if self._is_last() and self._comes_too_late(server, now):
            return None
        return self._cut(server, self._requests.popleft())

    def _cut(self, server: ServerState, request: Request) -> Request:
        """Cut the request to the number of samples that the server draws at once."""
        if request.num_samples > server.samples_per_request:
            self._requests.appendleft(request.cut(server.samples_per_request))
        return request

    async def _ask(self, server: ServerState, request: Request) -> None:
        sent = time.monotonic()
        try:
            if server.target is None:
                server.target = self._client.target(server.endpoint)
            outcome = await self._client.ask(
                server.target, request.body, request.seed, request.num_samples
            )
        except asyncio.CancelledError:
            server.num_in_flight -= request.num_samples
            if not server.is_stalled:
                raise
            # Cancelled by `_watch`, not by the caller: the request itself is still wanted.
            self._send_again(request, server, pause=0.0)
            return
        # Full means that the next request would not fit: measured before this one frees its places.
        waiting = self._requests[0] if self._requests else request
        is_full = not server.fits(waiting.num_samples)
        server.num_in_flight -= request.num_samples
        if isinstance(outcome, Unavailable):
            self._fail(server, request, outcome, sent)
        elif isinstance(outcome, Refusal):
            self._believe(server, request, outcome)
        else:
            self._accept(server, request, outcome, sent, is_full=is_full)
        self._pump()

    def _accept(
        self,
        server: ServerState,
        request: Request,
        completions: Sequence[Completion | Refusal],
        sent: float,
        *,
        is_full: bool,
    ) -> None:
        num_samples = len(completions)
        counts = [item.num_tokens for item in completions if isinstance(item, Completion)]
        if num_samples < request.num_samples or (num_samples > 1 and None in counts):
            server.samples_per_request = 1
        if num_samples < request.num_samples:
            self._wait(request.cut(num_samples))
        if request.refused_by is not None:
            request.refused_by.samples_per_request = 1
        num_tokens = sum(count or 1 for count in counts)
        server.succeed(time.monotonic(), sent, num_samples, num_tokens, is_full=is_full)
        self._busy_since = None
        for number, completion in enumerate(completions):
            request.deliver(request.seed + number, completion)
        request.batch.count(num_samples)

    def _believe(self, server: ServerState, request: Request, refusal: Refusal) -> None:
        """Accept a refusal as the answer to a single sample; split a request for several."""
        if request.num_samples == 1:
            request.deliver(request.seed, refusal)
            request.batch.count(1)
            return
        self._split(server, request)

    def _split(self, server: ServerState, request: Request) -> None:
        """Ask for each sample alone, because the server may not be able to draw several."""
        request.refused_by = server
        while request.num_samples > 1:
            rest = request.cut(1)
            self._wait(request)
            request = rest
        self._wait(request)

    def _wait(self, request: Request) -> None:
        """Put a request ahead of the queue, if a caller still waits for it."""
        if request.batch in self._batches:
            self._again.append(request)

    def _fail(
        self, server: ServerState, request: Request, outcome: Unavailable, sent: float
    ) -> None:
        now = time.monotonic()
        server.num_failures += 1
        if outcome.is_hopeless or outcome.is_unpaid:
            self._refuse(
                server, SamplingError(outcome.reason), request, is_paid=not outcome.is_unpaid
            )
            return
        if outcome.is_busy:
            self._busy_since = self._busy_since or now
            server.num_failures_in_a_row += server.limit.value == 1
            server.limit.fail(now, sent)
            server.paused_until = max(server.paused_until, now + outcome.retry_after_seconds)
        else:
            server.num_failures_in_a_row += 1
            # The request is not to blame if the server died or has been drained since.
            is_counted = server.is_open and not outcome.is_absent and not self._pool.is_dead()
            request.num_failures += is_counted
        is_busy_for_ever = self._busy_since and now - self._busy_since > self._pool.wait_seconds
        if request.num_failures > _MAX_RETRIES or is_busy_for_ever:
            self._stop(SamplingError(self._says_unavailable(outcome.reason)))
            return
        is_unfit = server.num_failures_in_a_row >= _FAILURES_IN_A_ROW
        if is_unfit or outcome.is_absent or self._pool.is_dead():
            self._drain(server, outcome.reason)
        wait = _FIRST_PAUSE_SECONDS * 2 ** max(request.num_failures - 1, 0)
        wait = min(wait, _LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)
        wait = max(wait, outcome.retry_after_seconds)
        self._send_again(request, server, pause=0.0 if self._has_others(server) else wait)

    def _send_again(self, request: Request, server: ServerState, *, pause: float) -> None:
        request.failed_at = server

        def enqueue() -> None:
            if request.num_samples > 1 and request.num_failures >= _FAILURES_TOGETHER:
                self._split(server, request)
            else:
                self._wait(request)

        def enqueue_later() -> None:
            enqueue()
            self._pump()

        if pause:
            asyncio.get_running_loop().call_later(pause, enqueue_later)
        else:
            enqueue()

    def _refuse(
        self,
        server: ServerState,
        error: QcrdError,
        request: Request | None = None,
        *,
        is_paid: bool = True,
    ) -> None:
        """Drain a server that answers wrongly; stop sampling if no other server is left."""
        server.is_refused = True
        if all(other.is_refused or other.is_retired for other in self.servers):
            if is_paid or request is None:
                self._stop(error)
                return
            self.end(
                SamplingError(
                    f"{error} Everything that was paid for is kept; top up the account and run the "
                    "same command to sample the rest."
                )
            )
            request.batch.count(request.num_samples)
            return
        if str(error) != server.trouble:
            logger.warning("%s This server gets no more requests.", error)
            server.trouble = str(error)
        self._drain(server, str(error))
        if request is not None:
            self._send_again(request, server, pause=0.0)

    def _drain(self, server: ServerState, reason: str) -> None:
        if not server.is_open:
            return
        self._close(server)
        server.trouble = reason
        server.num_drains += 1
        if not server.is_refused:
            logger.warning("%s gets no requests for now: %s", server.endpoint.url, reason)
        self._start(self._revive(server))

    def _close(self, server: ServerState) -> None:
        self._last_open = time.monotonic()
        server.is_open = False

    async def _revive(self, server: ServerState) -> None:
        pause = _FIRST_PAUSE_SECONDS * 2 ** min(server.num_drains_in_a_row, 6)
        server.num_drains_in_a_row += 1
        while not server.is_retired:
            pause = min(pause, _LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(_LONGEST_PAUSE_SECONDS if server.is_refused else pause)
            pause *= 2
            try:
                found = await asyncio.to_thread(self._pool.bring_back, server.endpoint)
            except QcrdError as error:
                self._refuse(server, error)
                continue
            if found is not None and not server.is_retired:
                server.reopen(found, is_alone=len(self.servers) == 1)
                logger.info("%s now gets requests", found.url)
                self._pump()
                return

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if await asyncio.to_thread(self._pool.reread):
                self._meet(self._pool.endpoints)
            now = time.monotonic()
            for server in self.servers:
                if server.is_open and self._has_stalled(server, now):
                    server.is_stalled = True
                    self._drain(server, "it takes far longer to answer than the other servers")
                    # Let new tasks start: one cancelled before its start would lose its request.
                    await asyncio.sleep(0)
                    for task in tuple(server.tasks):
                        task.cancel()
            if self.num_servers:
                self._last_open = now
            elif now - self._last_open > self._pool.wait_seconds:
                self._stop(SamplingError(self._says_absent()))
            self._pump()

    def _has_stalled(self, server: ServerState, now: float) -> bool:
        slowest = [other.seconds for other in self.servers if other is not server and other.is_open]
        if not server.num_in_flight or not any(slowest):
            return False
        return now - server.active_at > max(_STALL_SECONDS, _STALL_FACTOR * max(slowest))

    def _has_others(self, server: ServerState) -> bool:
        return any(other.is_open for other in self.servers if other is not server)

    def _meet(self, endpoints: Iterable[Endpoint]) -> None:
        """Open new servers, and close those that have left the list."""
        now = {endpoint.url: endpoint for endpoint in endpoints}
        known = {server.endpoint.url: server for server in self.servers if not server.is_retired}
        is_first, is_alone = not self.servers, len(now) == 1
        for url, server in known.items():
            # A server whose key or capacity has changed is closed too, and opened again below.
            if now.get(url) != server.endpoint:
                server.is_retired = True
                self._close(server)
                logger.info("%s was removed from teacher.endpoints", url)
        for url, endpoint in now.items():
            if url in known and not known[url].is_retired:
                continue
            server = ServerState(endpoint, self._teacher.concurrency, is_alone=is_alone)
            server.is_open = is_first and url not in self._pool.absent
            self.servers.append(server)
            if not server.is_open:
                self._start(self._revive(server))

    def _give_up_waiting(self) -> None:
        waiting = [*self._again, *self._requests]
        self._again.clear()
        self._requests.clear()
        for request in waiting:
            request.batch.count(request.num_samples)

    def _take_back(self, batch: Batch) -> None:
        for waiting in (self._again, self._requests):
            kept = [request for request in waiting if request.batch is not batch]
            waiting.clear()
            waiting.extend(kept)

    def _stop(self, error: BaseException) -> None:
        for batch in self._batches:
            if not batch.done.done():
                batch.done.set_exception(error)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._end_with)

    def _end_with(self, task: asyncio.Task[None]) -> None:
        """Pass an unexpected error to every waiting caller; otherwise they would wait forever."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._stop(error)

    def _says_unavailable(self, reason: str) -> str:
        return (
            f"The teacher did not answer a request after {_MAX_RETRIES} retries: {reason}. "
            "Finished shards are kept; check the server and run the same command to continue."
        )

    def _says_absent(self) -> str:
        urls = ", ".join(server.endpoint.url for server in self.servers if not server.is_retired)
        return (
            f"No server of teacher.endpoints answered for {self._pool.wait_seconds:.0f} s: {urls}. "
            "Finished shards are kept; start the servers and run the same command to continue."
        )
