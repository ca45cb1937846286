"""What the shards of a run share while they are sampled, and what they come to."""

from collections.abc import Mapping
from dataclasses import dataclass
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

    def prompt(self, question_id: str) -> Prompt:
        """What the teacher is asked for a question."""
        return render(self.config, self.spec, self.by_id[question_id]["question"])


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
    num_samples: int
    """Completions it wrote."""
    num_tokens: int
    """Sampled tokens."""
    num_failures: int
    """Requests it did not answer, which another server or a later one did."""
    num_drains: int
    """How often it was left out for a while."""
    concurrency: int
    """Samples in flight that it was found to bear."""


@dataclass(frozen=True)
class Sampled:
    """What sampling came to when nothing was missing any more, or the budget had ended."""

    shards: tuple[ShardResult, ...]
    """Those that this sampler stored."""
    servers: tuple[ServerResult, ...]
    """What they did for this sampler."""
    num_elsewhere: int
    """Samples that other samplers stored meanwhile."""
    num_twice: int
    """Samples drawn here that another sampler stored first."""
    num_left: int
    """Samples that are still missing."""
