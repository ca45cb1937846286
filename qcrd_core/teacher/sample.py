"""Sample shards of the plan, each into one part of the rationale table.

    plan = plan_sampling(store, spec.name, identity, questions=train, teacher=config.teacher)
    open_generation(store, plan)
    with teacher_endpoints(...) as pool, progress(...) as bar:
        job = SamplingJob(plan=plan, questions=train, ...)
        check_prompt_lengths(job)
        sampled = sample_shards(job, plan.shards, bar)

The table does not depend on shards, order, concurrency, servers or samplers, so several processes
may sample into one store (`shard_claims`). A part is written when all its samples have arrived; a
crash loses the shards in flight. All requests share one event loop, because a loop and a thread per
shard cost more than the requests.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import compress, groupby

from qcrd_core.ids import derive_seed
from qcrd_core.progress import Bar
from qcrd_core.teacher.cut_thoughts import CutThoughts
from qcrd_core.teacher.generation import note_dialect
from qcrd_core.teacher.job import Sampled, SamplingJob, ServerResult, ShardResult
from qcrd_core.teacher.plan import SampleKey, Shard
from qcrd_core.teacher.rendering import num_bytes
from qcrd_core.teacher.rows import Drawn, write_part
from qcrd_core.teacher.servers.choices import Completion, Refusal
from qcrd_core.teacher.servers.client import Prompt, TeacherClient
from qcrd_core.teacher.servers.dialect import Dialect
from qcrd_core.teacher.servers.dispatch import Dispatcher
from qcrd_core.teacher.servers.server_state import Request
from qcrd_core.teacher.shard_claims import ShardClaims


def sample_shards(job: SamplingJob, shards: Sequence[Shard], bar: Bar) -> Sampled:
    """Sample shards and write their parts, until this and other samplers have stored all shards.

    If the budget or the account's money ends within a shard, or too many thoughts are cut, its part
    holds the samples drawn until then.

    Args:
        job: What the shards share.
        shards: Shards of `job.plan.shards`.
        bar: Advanced by one per sample.

    Returns:
        Counts per written part and per server.

    Raises:
        SamplingError: If the teacher stays away, its account is empty, or too many of its thoughts
            are cut. Also if it refuses every request of a shard with several questions: the cause
            is then not a question, so the shard is not stored.
        LaunchError: If the local server cannot be restarted.
        StoreError: If the store cannot write a part.
    """
    return asyncio.run(_sample_shards(job, shards, bar))


@dataclass(eq=False)
class _Flight:
    """A shard that this sampler has claimed and is sampling."""

    shard: Shard
    drawn: dict[SampleKey, Drawn] = field(default_factory=dict)
    """Its samples so far."""
    is_lost: bool = False
    """Whether another sampler has stored it."""


class _Sampling:
    """Shards in flight, and the results of finished ones."""

    def __init__(
        self, job: SamplingJob, shards: Sequence[Shard], bar: Bar, client: TeacherClient
    ) -> None:
        self._job, self._bar, self._client = job, bar, client
        self.dispatcher = Dispatcher(
            job.pool,
            job.config.teacher,
            client,
            is_spent=lambda: job.meter.is_spent,
            is_last=lambda: self._is_last,
        )
        self._claims = ShardClaims(job.store, job.plan, shards, run_id=job.run_id, meter=job.meter)
        self._flights: dict[asyncio.Task[ShardResult | None], _Flight] = {}
        self._results: list[ShardResult] = []
        self._num_missing = self._claims.num_left
        self._num_twice = 0
        self._thoughts = CutThoughts(job.config.teacher)
        self._num_new = 0
        """Samples that the bar does not show yet."""
        self._is_last = False
        """Whether everything that is left is in flight."""

    async def go_on(self) -> bool:
        """Begin new shards and wait a moment; returns False when nothing is left to do."""
        num_left = self._claims.num_left
        num_drawn = await self._let_go(await asyncio.to_thread(self._claims.refresh))
        if not self.dispatcher.is_over:
            await self._take()
        num_found = num_left - self._claims.num_left
        self._bar.advance(num_found - num_drawn + self._num_new, note=self._note)
        self._num_new = 0
        if not self._flights:
            return False
        # A timeout, because others may store a part and new servers may appear.
        done, _ = await asyncio.wait(self._flights, timeout=1.0, return_when="FIRST_COMPLETED")
        for task in done:
            self._land(self._flights.pop(task), task.result())
        return True

    async def end(self) -> None:
        """Give up what is in flight."""
        await self._let_go([flight.shard.part for flight in self._flights.values()])

    @property
    def _note(self) -> str:
        return f"{self._job.meter.note}{self._thoughts.note}"

    def outcome(self) -> Sampled:
        """Counts of what was sampled.

        Raises:
            SamplingError: If sampling ended early for another reason than the budget.
        """
        if self.dispatcher.ended_by is not None:
            raise self.dispatcher.ended_by
        servers = [
            ServerResult(
                url=server.endpoint.url,
                num_samples=server.num_samples,
                num_tokens=server.num_tokens,
                num_failures=server.num_failures,
                num_drains=server.num_drains,
                concurrency=server.limit.value,
            )
            for server in self.dispatcher.servers
        ]
        return Sampled(
            shards=tuple(self._results),
            servers=tuple(servers),
            num_elsewhere=self._num_missing
            - self._claims.num_left
            - sum(result.num_rows for result in self._results),
            num_twice=self._num_twice,
            num_left=self._claims.num_left,
        )

    async def _take(self) -> None:
        """Begin as many shards as there is room for."""
        claims, most = self._claims, self._job.config.teacher.shards_in_flight
        most *= max(1, self.dispatcher.num_servers)
        while shards := claims.claim(max(most - len(self._flights), 0)):
            begun = await asyncio.gather(
                *(asyncio.to_thread(claims.announce, each) for each in shards)
            )
            for shard in compress(shards, begun):
                flight = _Flight(shard)
                self._flights[asyncio.create_task(self._sample(flight))] = flight
        self._is_last = len(self._flights) < most

    async def _sample(self, flight: _Flight) -> ShardResult | None:
        start = time.monotonic()
        job = self._job
        try:
            requests = []
            for question_id, keys in groupby(flight.shard.keys, key=lambda key: key[0]):
                prompt = job.prompt(question_id)
                requests += self._requests(flight, tuple(keys), self._client.body(prompt), prompt)
            await self.dispatcher.sample(requests)
            # In a thread, so that the requests of other shards continue.
            return await asyncio.to_thread(
                write_part, job, flight.shard, flight.drawn, claims=self._claims, start=start
            )
        finally:
            await asyncio.to_thread(self._claims.withdraw, flight.shard)

    def _requests(
        self, flight: _Flight, keys: Sequence[SampleKey], body: bytes, prompt: Prompt
    ) -> list[Request]:
        """Ask for samples of one question: one request per run of consecutive sample numbers."""
        first = derive_seed(self._job.config.teacher.seed, keys[0][0])
        by_seed = {first + key[1]: key for key in keys}

        def deliver(seed: int, outcome: Completion | Refusal) -> None:
            self._count(prompt, outcome)
            if not flight.is_lost:
                flight.drawn[by_seed[seed]] = Drawn(seed, outcome, datetime.now(UTC))
                self._num_new += 1

        rows = groupby(enumerate(by_seed), key=lambda numbered: numbered[1] - numbered[0])
        runs = [[seed for _, seed in row] for _, row in rows]
        return [Request(body, run[0], len(run), deliver) for run in runs]

    def _count(self, prompt: Prompt, outcome: Completion | Refusal) -> None:
        if isinstance(outcome, Refusal):
            return
        asked, written = outcome.num_prompt_tokens, outcome.num_tokens
        # A server that reports no token counts must not void a limit, so count the upper bound.
        self._job.meter.add(
            num_bytes(prompt) if asked is None else asked,
            self._job.config.teacher.max_new_tokens if written is None else written,
        )
        self._thoughts.add(outcome)
        if (error := self._thoughts.error) is not None:
            self.dispatcher.end(error)

    def _land(self, flight: _Flight, result: ShardResult | None) -> None:
        """Release a finished shard; without a result, another sampler was first."""
        num_rows = len(flight.drawn)
        self._claims.release(flight.shard, None if result is None else num_rows)
        if result is None:
            self._num_twice += num_rows
        else:
            self._results.append(result)

    async def _let_go(self, parts: Sequence[str]) -> int:
        """Give up shards; returns how many of their samples were already drawn."""
        lost = {
            task: flight for task, flight in self._flights.items() if flight.shard.part in parts
        }
        for task, flight in lost.items():
            flight.is_lost = True
            task.cancel()
            del self._flights[task]
        await asyncio.gather(*lost, return_exceptions=True)
        num_drawn = sum(len(flight.drawn) for flight in lost.values())
        self._num_twice += num_drawn
        return num_drawn


async def _sample_shards(job: SamplingJob, shards: Sequence[Shard], bar: Bar) -> Sampled:
    def note(url: str, dialect: Dialect) -> None:
        note_dialect(job.store, job.plan.folder, url, dialect.differences())

    async with TeacherClient(
        job.pool, job.config.teacher, job.spec.answer, on_dialect=note
    ) as client:
        sampling = _Sampling(job, shards, bar, client)
        async with sampling.dispatcher:
            try:
                while await sampling.go_on():
                    pass
            finally:
                await sampling.end()
        return sampling.outcome()
