"""The dispatcher's state of each request and of each server."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from qcrd_core.config.endpoints import Endpoint
from qcrd_core.teacher.servers.choices import Completion, Refusal
from qcrd_core.teacher.servers.client import Target
from qcrd_core.teacher.servers.concurrency import ConcurrencyLimit

_SMOOTHING = 0.1
_LEAST_REQUESTS_IN_FLIGHT = 8
"""A request asks for at most 1/8 of the limit: its places become free only when its last sample has
arrived, so larger requests would leave the server idle."""


@dataclass(eq=False, slots=True)
class Batch:
    """Samples whose caller waits until each is answered or given up."""

    num_left: int
    done: "asyncio.Future[None]"

    def count(self, num_samples: int) -> None:
        """Subtract finished samples; the last one wakes the caller."""
        self.num_left -= num_samples
        if not self.num_left and not self.done.done():
            self.done.set_result(None)


@dataclass(eq=False, slots=True)
class Request:
    """Samples of one question with consecutive seeds, drawn together."""

    body: bytes
    """From `TeacherClient.body`."""
    seed: int
    """Seed of the first sample; each further sample has the next."""
    num_samples: int
    deliver: Callable[[int, Completion | Refusal], None]
    """Receives the seed and answer of each sample; not called for samples that the budget cut."""
    batch: Batch = field(init=False)
    num_failures: int = 0
    failed_at: "ServerState | None" = None
    refused_by: "ServerState | None" = None
    """The server that failed the larger request from which this one was split."""

    def cut(self, num_samples: int) -> "Request":
        """Keep the first samples and return a request for the others."""
        rest = replace(
            self, seed=self.seed + num_samples, num_samples=self.num_samples - num_samples
        )
        rest.batch = self.batch
        self.num_samples = num_samples
        return rest


class ServerState:
    """State of one server: its concurrency limit, its record, and whether it gets work."""

    def __init__(self, endpoint: Endpoint, concurrency: int, *, is_alone: bool) -> None:
        """Begin with a server whose speed is unknown.

        Args:
            endpoint: The server.
            concurrency: Most samples in flight, if the endpoint names no limit.
            is_alone: Whether it is the only server.
        """
        self.endpoint = endpoint
        self.target: Target | None = None
        """Made with the first request."""
        most = endpoint.max_concurrency or concurrency
        self.limit = ConcurrencyLimit(most, is_alone=is_alone)
        self.samples_per_request = max(1, most // _LEAST_REQUESTS_IN_FLIGHT)
        """Most samples per request; 1 for a server that cannot draw several."""
        self.is_open = True
        """Whether it gets work."""
        self.is_refused = self.is_retired = self.is_stalled = False
        self.trouble: str | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.num_in_flight = 0
        self.paused_until = self.active_at = self.seconds = 0.0
        self.num_failures_in_a_row = self.num_drains_in_a_row = 0
        self.num_samples = self.num_tokens = self.num_failures = self.num_drains = 0

    def has_room(self, now: float) -> bool:
        """Whether the server may get another request."""
        return self.is_open and self.num_in_flight < self.limit.value and now >= self.paused_until

    def fits(self, num_samples: int) -> bool:
        """Whether a request of this size stays within the limit; an idle server takes any."""
        num_samples = min(num_samples, self.samples_per_request)
        return not self.num_in_flight or self.num_in_flight + num_samples <= self.limit.value

    def begin(self, now: float, num_samples: int) -> None:
        """Count samples as in flight."""
        if not self.num_in_flight:
            self.active_at = now
        self.num_in_flight += num_samples

    def succeed(
        self, now: float, sent: float, num_samples: int, num_tokens: int, *, is_full: bool
    ) -> None:
        """Count the completions of a request."""
        self.num_samples += num_samples
        self.num_tokens += num_tokens
        self.active_at = now
        taken = now - sent
        self.seconds += (taken - self.seconds) * (_SMOOTHING if self.seconds else 1.0)
        self.num_failures_in_a_row = self.num_drains_in_a_row = 0
        self.limit.succeed(now, num_samples, num_tokens, is_full=is_full)

    def reopen(self, endpoint: Endpoint, *, is_alone: bool) -> None:
        """Give it work again, starting with one request if other servers can do the rest."""
        self.endpoint, self.target = endpoint, None
        self.is_open, self.is_refused, self.is_stalled, self.trouble = True, False, False, None
        self.num_failures_in_a_row, self.paused_until = 0, 0.0
        if not is_alone and self.num_drains:
            self.limit.probe()
