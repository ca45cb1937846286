"""What the dispatcher keeps of each request and of each server."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from qcrd_core.config.endpoints import Endpoint
from qcrd_core.teacher.servers.client import Completion, Refusal, Target
from qcrd_core.teacher.servers.concurrency import AdaptiveLimit

_SMOOTHING = 0.1
_SHARE_OF_A_REQUEST = 8
"""A request has at most so large a part of the limit, for its places are free again only when its
last sample is there."""


@dataclass(eq=False, slots=True)
class Batch:
    """Samples whose caller waits until all are answered or given up."""

    num_left: int
    done: "asyncio.Future[None]"

    def count(self, num_samples: int) -> None:
        """So many samples less."""
        self.num_left -= num_samples
        if not self.num_left and not self.done.done():
            self.done.set_result(None)


@dataclass(eq=False, slots=True)
class Request:
    """Samples of one question with seeds in a row, drawn together."""

    body: bytes
    """From `TeacherClient.body`."""
    seed: int
    """Of the first; each further one has the next."""
    num_samples: int
    deliver: Callable[[int, Completion | Refusal], None]
    """Receives seed and answer of each sample; never called where the budget ends before."""
    batch: Batch = field(init=False)
    num_failures: int = 0
    failed_at: "Lane | None" = None
    refused_by: "Lane | None" = None
    """The server that did not answer a larger request, of which this was a part."""

    def cut(self, num_samples: int) -> "Request":
        """Keep the first samples and return a request for the others."""
        rest = replace(
            self, seed=self.seed + num_samples, num_samples=self.num_samples - num_samples
        )
        rest.batch = self.batch
        self.num_samples = num_samples
        return rest


class Lane:
    """One server: how much it gets, how it does, and whether it is to be used."""

    def __init__(self, endpoint: Endpoint, concurrency: int, *, is_alone: bool) -> None:
        """Begin with a server of which nothing is known.

        Args:
            endpoint: Where it is.
            concurrency: Most samples in flight, where the endpoint says nothing.
            is_alone: There is no other server.
        """
        self.endpoint = endpoint
        self.target: Target | None = None
        """Made when the first request goes there."""
        most = endpoint.max_concurrency or concurrency
        self.limit = AdaptiveLimit(most, is_alone=is_alone)
        self.samples_a_request = max(1, most // _SHARE_OF_A_REQUEST)
        """Most that are asked for together; 1 for a server that draws one sample a request."""
        self.is_open = True
        """It gets work."""
        self.is_refused = self.is_retired = self.is_stalled = False
        self.trouble: str | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.num_in_flight = 0
        self.paused_until = self.active_at = self.seconds = 0.0
        self.num_failures_in_a_row = self.num_drains_in_a_row = 0
        self.num_samples = self.num_tokens = self.num_failures = self.num_drains = 0

    def has_room(self, now: float) -> bool:
        """Whether it may get more."""
        return self.is_open and self.num_in_flight < self.limit.value and now >= self.paused_until

    def fits(self, num_samples: int) -> bool:
        """Whether a request for so many stays within the limit; one alone does."""
        num_samples = min(num_samples, self.samples_a_request)
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
        """Give it work again, carefully where others can do it."""
        self.endpoint, self.target = endpoint, None
        self.is_open, self.is_refused, self.is_stalled, self.trouble = True, False, False, None
        self.num_failures_in_a_row, self.paused_until = 0, 0.0
        if not is_alone and self.num_drains:
            self.limit.probe()
