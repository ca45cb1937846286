"""Which server answers which request: as many at each as it bears, none where nobody answers.

Servers take from one queue whenever they have room, so that each gets work at its own speed; at the
end a slow one gets no more than it can do while the others do the rest. The samples of a question
are one request, as far as the server bears it. A sample depends on model, prompt and seed alone, so
it does not matter who draws it in the end, nor with which others:

- a server that draws fewer samples than it was asked for, or counts no tokens for each, is asked
  for one at a time from then on. What it refuses, or fails at twice, is asked for one by one: their
  number may be the reason.
- transport error, timeout, 408, 425, 429, 5xx: it goes to another server, or to the same one after
  a growing pause. More than `_MAX_RETRIES` such failures of one request are a SamplingError;
  those that only say "too busy", or come from a server that died, are not counted.
- a server that fails three times in a row, refuses connections, or lets everything wait ten times
  as long as the others is drained: it gets nothing, what it had goes elsewhere. It is looked at
  again after a growing pause and comes back with one request at a time.
- a server that refuses the key or the model is drained likewise, and a SamplingError where it is
  the only one.
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
from qcrd_core.config.models import TeacherSection
from qcrd_core.errors import QcrdError, SamplingError
from qcrd_core.teacher.servers.client import Completion, Refusal, TeacherClient, Unavailable
from qcrd_core.teacher.servers.pool import TeacherPool
from qcrd_core.teacher.servers.server_state import Batch, Lane, Request

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_FAILURES_IN_A_ROW = 3
# Attempts after the first. With the pauses between them they outlast a server's restart.
_MAX_RETRIES = 5
_FAILURES_TOGETHER = 2
"""Failures of a request for several samples, after which each is asked for alone."""
_STALL_SECONDS = 30.0
_STALL_FACTOR = 10
_WATCH_SECONDS = 1.0


class Dispatcher:
    """Gives requests to the servers of a pool. Lives inside one event loop, as `async with`."""

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
            is_spent: Whether the budget has ended; what waits then is given up.
            is_last: Whether nothing more will come than what waits now.
        """
        self._pool, self._teacher, self._client = pool, teacher, client
        self._is_spent, self._is_last = is_spent, is_last
        self.lanes: list[Lane] = []
        """Servers, those that have left the discovery file included."""
        self._requests: deque[Request] = deque()
        self._again: deque[Request] = deque()
        self._batches: set[Batch] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_open = time.monotonic()
        self._busy_since: float | None = None

    async def __aenter__(self) -> Self:
        """Open a lane to each server and begin to watch them."""
        self._meet(self._pool.endpoints)
        self._start(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give up what is under way."""
        tasks = [*self._tasks, *(task for lane in self.lanes for task in lane.tasks)]
        for task in tasks:
            task.cancel()
        if kind is not None:
            self._pool.close()  # a thread that brings a server back must end now
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def num_servers(self) -> int:
        """Servers that get work now."""
        return sum(lane.is_open for lane in self.lanes)

    async def sample(self, requests: Sequence[Request]) -> None:
        """Have requests answered; each sample is `deliver`ed as it is.

        Cancelled, it takes back what has not been sent.

        Args:
            requests: What is to be drawn.

        Raises:
            SamplingError: If no server answers any more, or one request fails too often.
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
        if self._is_spent():
            self._give_up_waiting()
            return
        now = time.monotonic()
        while found := self._match(now):
            lane, request = found
            lane.begin(now, request.num_samples)
            task = asyncio.create_task(self._ask(lane, request))
            lane.tasks.add(task)
            task.add_done_callback(lane.tasks.discard)
            task.add_done_callback(self._end_with)

    def _match(self, now: float) -> tuple[Lane, Request] | None:
        room = [lane for lane in self.lanes if lane.has_room(now)]
        for lane in sorted(room, key=lambda lane: lane.num_in_flight / lane.limit.value):
            request = self._next(lane, now)
            if request is not None:
                return lane, request
        return None

    def _comes_too_late(self, lane: Lane, now: float) -> bool:
        """Whether faster servers will have done all that waits before this one has done one more.

        A server does as many requests a second as it has in flight over what each takes (Little).
        One that has not answered for so long, or pauses, is not counted on.
        """
        num_done = sum(
            len(other.tasks) * (lane.seconds / other.seconds - 1)
            for other in self.lanes
            if other.is_open
            and 0 < other.seconds < lane.seconds
            and now - other.active_at < lane.seconds
            and now >= other.paused_until
        )
        return len(self._requests) < num_done

    def _next(self, lane: Lane, now: float) -> Request | None:
        for request in self._again:
            is_free = request.failed_at is not lane or not self._has_others(lane)
            if is_free and lane.fits(request.num_samples):
                self._again.remove(request)
                return self._cut(lane, request)
        if not self._requests or not lane.fits(self._requests[0].num_samples):
            return None
        if self._is_last() and self._comes_too_late(lane, now):
            return None
        return self._cut(lane, self._requests.popleft())

    def _cut(self, lane: Lane, request: Request) -> Request:
        """Leave to the server as many samples as it draws at once."""
        if request.num_samples > lane.samples_a_request:
            self._requests.appendleft(request.cut(lane.samples_a_request))
        return request

    async def _ask(self, lane: Lane, request: Request) -> None:
        sent = time.monotonic()
        try:
            if lane.target is None:
                lane.target = self._client.target(lane.endpoint)
            outcome = await self._client.ask(
                lane.target, request.body, request.seed, request.num_samples
            )
        except asyncio.CancelledError:
            lane.num_in_flight -= request.num_samples
            if not lane.is_stalled:
                raise
            self._send_again(request, lane, pause=0.0)
            return
        waiting = self._requests[0] if self._requests else request
        is_full = not lane.fits(waiting.num_samples)
        lane.num_in_flight -= request.num_samples
        if isinstance(outcome, Unavailable):
            self._fail(lane, request, outcome, sent)
        elif isinstance(outcome, Refusal):
            self._believe(lane, request, outcome)
        else:
            self._accept(lane, request, outcome, sent, is_full=is_full)
        self._pump()

    def _accept(
        self,
        lane: Lane,
        request: Request,
        completions: Sequence[Completion],
        sent: float,
        *,
        is_full: bool,
    ) -> None:
        num_samples, counts = len(completions), [item.num_tokens for item in completions]
        if num_samples < request.num_samples or (num_samples > 1 and None in counts):
            lane.samples_a_request = 1
        if num_samples < request.num_samples:
            self._wait(request.cut(num_samples))
        if request.refused_by is not None:
            request.refused_by.samples_a_request = 1
        num_tokens = sum(count or 1 for count in counts)
        lane.succeed(time.monotonic(), sent, num_samples, num_tokens, is_full=is_full)
        self._busy_since = None
        for number, completion in enumerate(completions):
            request.deliver(request.seed + number, completion)
        request.batch.count(num_samples)

    def _believe(self, lane: Lane, request: Request, refusal: Refusal) -> None:
        """Take a refusal as the answer to one sample; several are asked for one by one."""
        if request.num_samples == 1:
            request.deliver(request.seed, refusal)
            request.batch.count(1)
            return
        self._split(lane, request)

    def _split(self, lane: Lane, request: Request) -> None:
        """Ask for each sample alone: the server may not be able to draw several."""
        request.refused_by = lane
        while request.num_samples > 1:
            rest = request.cut(1)
            self._wait(request)
            request = rest
        self._wait(request)

    def _wait(self, request: Request) -> None:
        """Let a request wait before all others, if anyone still waits for it."""
        if request.batch in self._batches:
            self._again.append(request)

    def _fail(self, lane: Lane, request: Request, outcome: Unavailable, sent: float) -> None:
        now = time.monotonic()
        lane.num_failures += 1
        if outcome.is_hopeless:
            self._refuse(lane, SamplingError(outcome.reason), request)
            return
        if outcome.is_busy:
            self._busy_since = self._busy_since or now
            lane.num_failures_in_a_row += lane.limit.value == 1
            lane.limit.fail(now, sent)
            lane.paused_until = max(lane.paused_until, now + outcome.retry_after_seconds)
        else:
            lane.num_failures_in_a_row += 1
            # A server that died, or was found unfit meanwhile, says nothing of the request.
            is_counted = lane.is_open and not outcome.is_absent and not self._pool.is_dead()
            request.num_failures += is_counted
        is_busy_for_ever = self._busy_since and now - self._busy_since > self._pool.wait_seconds
        if request.num_failures > _MAX_RETRIES or is_busy_for_ever:
            self._stop(SamplingError(self._says_unavailable(outcome.reason)))
            return
        is_unfit = lane.num_failures_in_a_row >= _FAILURES_IN_A_ROW
        if is_unfit or outcome.is_absent or self._pool.is_dead():
            self._drain(lane, outcome.reason)
        wait = _FIRST_PAUSE_SECONDS * 2 ** max(request.num_failures - 1, 0)
        wait = min(wait, _LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)
        wait = max(wait, outcome.retry_after_seconds)
        self._send_again(request, lane, pause=0.0 if self._has_others(lane) else wait)

    def _send_again(self, request: Request, lane: Lane, *, pause: float) -> None:
        request.failed_at = lane

        def enqueue() -> None:
            if request.num_samples > 1 and request.num_failures >= _FAILURES_TOGETHER:
                self._split(lane, request)
            else:
                self._wait(request)

        def enqueue_later() -> None:
            enqueue()
            self._pump()

        if pause:
            asyncio.get_running_loop().call_later(pause, enqueue_later)
        else:
            enqueue()

    def _refuse(self, lane: Lane, error: QcrdError, request: Request | None = None) -> None:
        """Leave out a server that answers wrongly; without another one that is the end."""
        lane.is_refused = True
        if all(other.is_refused or other.is_retired for other in self.lanes):
            self._stop(error)
            return
        if str(error) != lane.trouble:
            logger.warning("%s The server is left out.", error)
            lane.trouble = str(error)
        self._drain(lane, str(error))
        if request is not None:
            self._send_again(request, lane, pause=0.0)

    def _drain(self, lane: Lane, reason: str) -> None:
        if not lane.is_open:
            return
        self._close(lane)
        lane.trouble = reason
        lane.num_drains += 1
        if not lane.is_refused:
            logger.warning("%s is left out for now: %s", lane.endpoint.url, reason)
        self._start(self._revive(lane))

    def _close(self, lane: Lane) -> None:
        self._last_open = time.monotonic()
        lane.is_open = False

    async def _revive(self, lane: Lane) -> None:
        pause = _FIRST_PAUSE_SECONDS * 2 ** min(lane.num_drains_in_a_row, 6)
        lane.num_drains_in_a_row += 1
        while not lane.is_retired:
            pause = min(pause, _LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(_LONGEST_PAUSE_SECONDS if lane.is_refused else pause)
            pause *= 2
            try:
                found = await asyncio.to_thread(self._pool.bring_back, lane.endpoint)
            except QcrdError as error:
                self._refuse(lane, error)
                continue
            if found is not None and not lane.is_retired:
                lane.reopen(found, is_alone=len(self.lanes) == 1)
                logger.info("%s is used", found.url)
                self._pump()
                return

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if await asyncio.to_thread(self._pool.reread):
                self._meet(self._pool.endpoints)
            now = time.monotonic()
            for lane in self.lanes:
                if lane.is_open and self._has_stalled(lane, now):
                    lane.is_stalled = True
                    self._drain(lane, "its requests wait far longer than those of others")
                    # A task that has not begun could not give its request back.
                    await asyncio.sleep(0)
                    for task in tuple(lane.tasks):
                        task.cancel()
            if self.num_servers:
                self._last_open = now
            elif now - self._last_open > self._pool.wait_seconds:
                self._stop(SamplingError(self._says_absent()))
            self._pump()

    def _has_stalled(self, lane: Lane, now: float) -> bool:
        slowest = [other.seconds for other in self.lanes if other is not lane and other.is_open]
        if not lane.num_in_flight or not any(slowest):
            return False
        return now - lane.active_at > max(_STALL_SECONDS, _STALL_FACTOR * max(slowest))

    def _has_others(self, lane: Lane) -> bool:
        return any(other.is_open for other in self.lanes if other is not lane)

    def _meet(self, endpoints: Iterable[Endpoint]) -> None:
        """Open lanes to new servers, and close those of servers that have left."""
        now = {endpoint.url: endpoint for endpoint in endpoints}
        known = {lane.endpoint.url: lane for lane in self.lanes if not lane.is_retired}
        is_first, is_alone = not self.lanes, len(now) == 1
        for url, lane in known.items():
            # One with another key or capacity leaves too, and comes anew.
            if now.get(url) != lane.endpoint:
                lane.is_retired = True
                self._close(lane)
                logger.info("%s has left the servers of the teacher", url)
        for url, endpoint in now.items():
            if url in known and not known[url].is_retired:
                continue
            lane = Lane(endpoint, self._teacher.concurrency, is_alone=is_alone)
            lane.is_open = is_first and url not in self._pool.absent
            self.lanes.append(lane)
            if not lane.is_open:
                self._start(self._revive(lane))

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
        """Pass on what nobody foresaw, or those who wait would wait for ever."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._stop(error)

    def _says_unavailable(self, reason: str) -> str:
        return (
            f"The teacher must answer; got {reason} after {_MAX_RETRIES} retries. Finished shards "
            "are kept: look at the server and run again."
        )

    def _says_absent(self) -> str:
        urls = ", ".join(lane.endpoint.url for lane in self.lanes if not lane.is_retired)
        return (
            f"teacher.endpoints must answer; got no healthy {urls} within "
            f"{self._pool.wait_seconds:.0f} s. Finished shards are kept: start the servers and run "
            "again."
        )
