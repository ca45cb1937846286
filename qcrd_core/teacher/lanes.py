"""What the dispatcher keeps of each request and of each server."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from qcrd_core.config_endpoints import Endpoint
from qcrd_core.teacher.client import Completion, Refusal, Target
from qcrd_core.teacher.limit import AdaptiveLimit

_SMOOTHING = 0.1


@dataclass(eq=False, slots=True)
class Batch:
    """Requests whose caller waits until all are answered or given up."""

    num_left: int
    done: "asyncio.Future[None]"

    def count(self) -> None:
        """One request less."""
        self.num_left -= 1
        if not self.num_left and not self.done.done():
            self.done.set_result(None)


@dataclass(eq=False, slots=True)
class Request:
    """One sample to be drawn."""

    body: bytes
    """From `TeacherClient.body`."""
    seed: int
    deliver: Callable[[Completion | Refusal], None]
    """Receives the answer; never called where the budget ends before."""
    batch: Batch = field(init=False)
    num_failures: int = 0
    failed_at: "Lane | None" = None


class Lane:
    """One server: how much it gets, how it does, and whether it is to be used."""

    def __init__(self, endpoint: Endpoint, concurrency: int, *, is_alone: bool) -> None:
        """Begin with a server of which nothing is known.

        Args:
            endpoint: Where it is.
            concurrency: Most requests in flight, where the endpoint says nothing.
            is_alone: There is no other server.
        """
        self.endpoint = endpoint
        self.target: Target | None = None
        """Made when the first request goes there."""
        most = endpoint.max_concurrency or concurrency
        self.limit = AdaptiveLimit(most, is_alone=is_alone)
        self.is_open = True
        """It gets work."""
        self.is_refused = self.is_retired = self.is_stalled = False
        self.trouble: str | None = None
        self.own: deque[Request] = deque()
        """The rest of a question it has begun."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.num_in_flight = 0
        self.paused_until = self.active_at = self.seconds = 0.0
        self.num_failures_in_a_row = self.num_drains_in_a_row = 0
        self.num_requests = self.num_tokens = self.num_failures = self.num_drains = 0

    def has_room(self, now: float) -> bool:
        """Whether it may get one more request."""
        return self.is_open and self.num_in_flight < self.limit.value and now >= self.paused_until

    def begin(self, now: float) -> None:
        """Count a request as in flight."""
        if not self.num_in_flight:
            self.active_at = now
        self.num_in_flight += 1

    def succeed(self, now: float, sent: float, num_tokens: int, *, is_full: bool) -> None:
        """Count a completion."""
        self.num_tokens += num_tokens
        self.active_at = now
        taken = now - sent
        self.seconds += (taken - self.seconds) * (_SMOOTHING if self.seconds else 1.0)
        self.num_failures_in_a_row = self.num_drains_in_a_row = 0
        self.limit.succeed(now, num_tokens, is_full=is_full)

    def reopen(self, endpoint: Endpoint, *, is_alone: bool) -> None:
        """Give it work again, carefully where others can do it."""
        self.endpoint, self.target = endpoint, None
        self.is_open, self.is_refused, self.is_stalled, self.trouble = True, False, False, None
        self.num_failures_in_a_row, self.paused_until = 0, 0.0
        if not is_alone and self.num_drains:
            self.limit.probe()
