"""Sample shards of the plan, each into one part of the rationale table.

    plan = plan_sampling(store, spec.name, identity, questions=train, teacher=config.teacher)
    open_generation(store, plan)
    with teacher_endpoints(...) as pool, progress(...) as bar:
        job = SamplingJob(plan=plan, questions=train, ...)
        check_prompt_lengths(job)
        results, servers = sample_shards(job, plan.shards, bar)

The table does not depend on shards, order, concurrency or servers. A part is written when all its
samples are there; a crash loses the shards in flight. All requests share one event loop: a loop and
a thread for each shard cost more than the requests themselves.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby, islice
from typing import Any

import polars as pl

from data_schemas import Rationales
from qcrd_core.answers import extract
from qcrd_core.config import RunConfig
from qcrd_core.datasets.spec import DatasetSpec
from qcrd_core.errors import DataError, SamplingError
from qcrd_core.ids import derive_seed
from qcrd_core.progress import Bar
from qcrd_core.store import Store, part_name
from qcrd_core.teacher.budget import Meter
from qcrd_core.teacher.client import Completion, Prompt, Refusal, TeacherClient
from qcrd_core.teacher.dispatch import Dispatcher
from qcrd_core.teacher.lanes import Request
from qcrd_core.teacher.plan import SamplingPlan, Shard
from qcrd_core.teacher.pool import TeacherPool
from qcrd_core.teacher.prepare import PreparedTeacher
from qcrd_core.teacher.rendering import num_bytes, render

logger = logging.getLogger(__name__)

_Key = tuple[str, int, str]


@dataclass(frozen=True, eq=False)
class SamplingJob:
    """What all shards of a run share. Read-only, so threads may share it."""

    plan: SamplingPlan
    questions: pl.DataFrame
    """Table `questions`; holds at least every question of the plan."""
    spec: DatasetSpec
    config: RunConfig
    prepared: PreparedTeacher
    pool: TeacherPool
    store: Store
    run_id: str
    meter: Meter

    @cached_property
    def by_id(self) -> Mapping[str, dict[str, Any]]:
        """Question rows by question_id."""
        return {row["question_id"]: row for row in self.questions.iter_rows(named=True)}


@dataclass(frozen=True)
class ShardResult:
    """What one shard came to."""

    path: str
    """The part, relative to the store's root."""
    num_rows: int
    num_ok: int
    num_no_answer: int
    num_failed: int
    num_tokens: int
    """Sampled tokens."""
    num_prompt_tokens: int
    seconds: float


@dataclass(frozen=True)
class ServerResult:
    """What one server came to."""

    url: str
    num_requests: int
    """Requests it answered, refusals included."""
    num_tokens: int
    """Sampled tokens."""
    num_failures: int
    """Requests it did not answer, which another server or a later one did."""
    num_drains: int
    """How often it was left out for a while."""
    concurrency: int
    """Requests in flight that it was found to bear."""


def sample_shards(
    job: SamplingJob, shards: Sequence[Shard], bar: Bar
) -> tuple[list[ShardResult], list[ServerResult]]:
    """Sample shards and write their parts.

    Where the budget ends within a shard, its part holds what was sampled until then.

    Args:
        job: What the shards share.
        shards: Of `job.plan.shards`.
        bar: Advanced by one a sample.

    Returns:
        Counts of each part that has been written, and of each server.

    Raises:
        SamplingError: If the teacher stays away, or refuses every single request of several
            questions, which no stored failure should stand for: nothing of that shard is written.
        LaunchError: If the local server does not start again.
        StoreError: If the store refuses a part.
    """
    return asyncio.run(_sample_shards(job, shards, bar))


def check_prompt_lengths(job: SamplingJob) -> int:
    """Refuse a question that the model cannot read, before anything is sampled.

    Prompts are counted from the longest on, until the rest is certainly short enough: a token is
    at least half as many bytes as in the densest prompt counted so far.

    Args:
        job: What the shards share; only questions that are still to be sampled are looked at.

    Returns:
        Prompts counted; 0 if the server says no context length or counts no tokens.

    Raises:
        DataError: If a prompt and `max_new_tokens` exceed the context; names the question.
    """
    limit = job.pool.max_model_len
    if limit is None:
        logger.warning("The teacher's context length is unknown; prompt lengths are not checked")
        return 0
    wanted = sorted({key[0] for shard in job.plan.shards for key in shard.keys})
    prompts = {question_id: _prompt(job, question_id) for question_id in wanted}
    return asyncio.run(_check_lengths(job, prompts, limit))


async def _sample_shards(
    job: SamplingJob, shards: Sequence[Shard], bar: Bar
) -> tuple[list[ShardResult], list[ServerResult]]:
    teacher = job.config.teacher
    todo, tasks, results = iter(shards), set[asyncio.Task[ShardResult]](), list[ShardResult]()
    async with (
        TeacherClient(job.pool, teacher, job.spec.answer.stop) as client,
        Dispatcher(job.pool, teacher, client, lambda: job.meter.is_spent) as servers,
    ):
        try:
            while True:
                num_free = teacher.shards_in_flight * max(1, servers.num_servers) - len(tasks)
                for shard in islice(todo, max(num_free, 0)):
                    tasks.add(asyncio.create_task(_sample_shard(job, shard, client, servers, bar)))
                if not tasks:
                    break
                # With a time limit: more servers may come meanwhile.
                done, _ = await asyncio.wait(tasks, timeout=1.0, return_when="FIRST_COMPLETED")
                results += [task.result() for task in done]
                tasks -= done
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return results, [
            ServerResult(
                url=lane.endpoint.url,
                num_requests=lane.num_requests,
                num_tokens=lane.num_tokens,
                num_failures=lane.num_failures,
                num_drains=lane.num_drains,
                concurrency=lane.limit.value,
            )
            for lane in servers.lanes
        ]


async def _sample_shard(
    job: SamplingJob, shard: Shard, client: TeacherClient, servers: Dispatcher, bar: Bar
) -> ShardResult:
    start = time.monotonic()
    rows: dict[_Key, dict[str, Any]] = {}

    def ask(key: _Key, body: bytes, prompt: Prompt) -> Request:
        seed = derive_seed(job.config.teacher.seed, key[0], key[1])

        def deliver(outcome: Completion | Refusal) -> None:
            rows[key] = _row(job, key, seed, outcome)
            _count(job, prompt, outcome)
            bar.advance(note=job.meter.note)

        return Request(body, seed, deliver)

    requests = []
    for question_id, keys in groupby(shard.keys, key=lambda key: key[0]):
        prompt = _prompt(job, question_id)
        body = client.body(prompt)
        requests.append([ask(key, body, prompt) for key in keys])
    await servers.sample(requests)
    # In a thread, while the requests of other shards go on.
    return await asyncio.to_thread(_write, job, shard, rows, start)


def _write(
    job: SamplingJob, shard: Shard, found: Mapping[_Key, dict[str, Any]], start: float
) -> ShardResult:
    rows = [found[key] for key in shard.keys if key in found]
    _refuse_total_failure(rows)
    frame = pl.DataFrame(rows, schema=Rationales.create_empty().schema)
    path = f"{job.plan.folder}/{_part(shard, frame)}"
    if rows:
        job.store.write_table(path, frame, Rationales)
    result = ShardResult(
        path=path,
        num_rows=frame.height,
        num_ok=frame.filter(pl.col("status") == "ok").height,
        num_no_answer=frame.filter(pl.col("status") == "no_answer").height,
        num_failed=frame.filter(pl.col("status") == "failed").height,
        num_tokens=int(frame["num_tokens"].sum()),
        num_prompt_tokens=int(frame["num_prompt_tokens"].sum()),
        seconds=time.monotonic() - start,
    )
    _log(result)
    return result


async def _check_lengths(job: SamplingJob, prompts: Mapping[str, Prompt], limit: int) -> int:
    budget = limit - job.config.teacher.max_new_tokens
    num_counted, densest = 0, 0.0
    async with TeacherClient(job.pool, job.config.teacher, ()) as client:
        for question_id in sorted(prompts, key=lambda name: -num_bytes(prompts[name])):
            size = num_bytes(prompts[question_id])
            if num_counted and 2 * densest * size < budget:
                break
            num_tokens = await client.count_tokens(prompts[question_id])
            if num_tokens is None:
                logger.warning("The teacher counts no tokens; prompt lengths are not checked")
                return 0
            if num_tokens > budget:
                msg = (
                    f"A prompt and its completion must fit into the teacher's context of {limit} "
                    f"tokens; got {num_tokens} + {job.config.teacher.max_new_tokens} for question "
                    f"{question_id!r}. Shorten the question or the demonstrations, lower "
                    "teacher.max_new_tokens, or raise teacher.server.max_model_len."
                )
                raise DataError(msg)
            num_counted += 1
            densest = max(densest, num_tokens / size)
    return num_counted


def _prompt(job: SamplingJob, question_id: str) -> Prompt:
    return render(job.config, job.spec, job.by_id[question_id]["question"])


def _count(job: SamplingJob, prompt: Prompt, outcome: Completion | Refusal) -> None:
    if isinstance(outcome, Refusal):
        return
    asked, written = outcome.num_prompt_tokens, outcome.num_tokens
    # A server that counts nothing must not make a limit void: what it took at most.
    job.meter.add(
        num_bytes(prompt) if asked is None else asked,
        job.config.teacher.max_new_tokens if written is None else written,
    )


def _part(shard: Shard, frame: pl.DataFrame) -> str:
    if frame.height == len(shard.keys):
        return shard.part
    return part_name(frame.select("question_id", "sample_idx", "prompt_hash"))


def _row(job: SamplingJob, key: _Key, seed: int, outcome: Completion | Refusal) -> dict[str, Any]:
    question_id, sample_idx, prompt_hash = key
    row: dict[str, Any] = {
        "question_id": question_id,
        "sample_idx": sample_idx,
        "source": "teacher",
        "round": None,
        "model": job.prepared.served_name,
        "model_revision": job.prepared.revision,
        "generation": job.plan.fingerprint,
        "prompt_hash": prompt_hash,
        "seed": seed,
        "created_at": datetime.now(UTC),
        "run_id": job.run_id,
    }
    if isinstance(outcome, Refusal):
        return row | {"status": "failed", "error": outcome.error}
    found = extract(outcome.text, job.spec.answer, job.by_id[question_id]["choices"])
    return row | {
        "text": outcome.text,
        "rationale": found.rationale,
        "answer_raw": found.answer_raw,
        "answer": found.answer,
        "status": "no_answer" if found.answer is None else "ok",
        "finish_reason": outcome.finish_reason,
        "num_prompt_tokens": outcome.num_prompt_tokens,
        "num_tokens": outcome.num_tokens,
        "cumulative_logprob": outcome.cumulative_logprob,
    }


def _log(result: ShardResult) -> None:
    logger.info(
        "Sampled %d | ok %d | no answer %d | failed %d | %.0f tok/s | %s",
        result.num_rows,
        result.num_ok,
        result.num_no_answer,
        result.num_failed,
        result.num_tokens / max(result.seconds, 1e-9),
        result.path,
    )


def _refuse_total_failure(rows: list[dict[str, Any]]) -> None:
    has_several = len({row["question_id"] for row in rows}) > 1
    if has_several and all(row["status"] == "failed" for row in rows):
        msg = (
            f"The teacher must answer some requests of a shard; it refused all {len(rows)}, the "
            f"first with {rows[0]['error']}. Nothing of the shard is stored: correct the teacher's "
            "settings and run again."
        )
        raise SamplingError(msg)
