"""Inputs of a run's sampling, shared by its shards, and its results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import polars as pl

from qcrd_core.config.run import RunConfig
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.store.store import Store
from qcrd_core.teacher.budget import Meter
from qcrd_core.teacher.plan import SamplingPlan
from qcrd_core.teacher.prepare import PreparedTeacher
from qcrd_core.teacher.rendering import render
from qcrd_core.teacher.servers.client import Prompt
from qcrd_core.teacher.servers.pool import TeacherPool


@dataclass(frozen=True, eq=False)
class SamplingJob:
    """Inputs that all shards of a run share. Read-only, so threads may share it."""

    plan: SamplingPlan
    questions: pl.DataFrame
    """Table `questions`, with at least every question of the plan."""
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

    def prompt(self, question_id: str) -> Prompt:
        """Prompt of a question, as the teacher receives it."""
        row = self.by_id[question_id]
        return render(self.config, self.spec, row["question"], row["messages"])


@dataclass(frozen=True)
class ShardResult:
    """Counts of one sampled shard."""

    path: str
    """The part, relative to the store's root."""
    num_rows: int
    num_ok: int
    num_no_answer: int
    num_failed: int
    num_thought_only: int
    """Samples with nothing behind their thought, mostly because it was cut."""
    num_tokens: int
    """Sampled tokens."""
    num_prompt_tokens: int
    seconds: float


@dataclass(frozen=True)
class ServerResult:
    """Counts of one server."""

    url: str
    num_samples: int
    """Completions that it returned."""
    num_tokens: int
    """Sampled tokens."""
    num_failures: int
    """Requests that it did not answer; they were sent again, here or to another server."""
    num_drains: int
    """How often it was drained, and got no requests for a while."""
    concurrency: int
    """Samples in flight that it can sustain."""


@dataclass(frozen=True)
class Sampled:
    """Result of sampling, when nothing was missing any more or the budget was used up."""

    shards: tuple[ShardResult, ...]
    """Shards that this sampler stored."""
    servers: tuple[ServerResult, ...]
    """Work of each server for this sampler."""
    num_elsewhere: int
    """Samples that other samplers stored during this call."""
    num_twice: int
    """Samples drawn here, although another sampler stored them first."""
    num_left: int
    """Samples that are still missing."""


def joined(found: Sequence[Sampled]) -> Sampled:
    """Add up the results of several plans, sampled one after the other.

    Args:
        found: At least one.

    Returns:
        Their sums; of the concurrency and of what is left, the last.
    """
    servers: dict[str, ServerResult] = {}
    for result in (server for sampled in found for server in sampled.servers):
        before = servers.get(result.url)
        servers[result.url] = result if before is None else _added(before, result)
    return Sampled(
        shards=tuple(shard for sampled in found for shard in sampled.shards),
        servers=tuple(servers.values()),
        num_elsewhere=sum(sampled.num_elsewhere for sampled in found),
        num_twice=sum(sampled.num_twice for sampled in found),
        num_left=found[-1].num_left,
    )


def _added(before: ServerResult, after: ServerResult) -> ServerResult:
    names = ("num_samples", "num_tokens", "num_failures", "num_drains")
    return replace(after, **{name: getattr(before, name) + getattr(after, name) for name in names})
