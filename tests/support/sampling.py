"""One sampling run against a pool of servers, as the flow does it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from qcrd_core.config.run import RunConfig, validate_config
from qcrd_core.data.answers import AnswerSpec
from qcrd_core.data.spec import DatasetSpec, WordProblemsSource
from qcrd_core.progress import progress
from qcrd_core.store.store import Store
from qcrd_core.teacher.budget import Meter, tokens_of
from qcrd_core.teacher.generation import generation_identity
from qcrd_core.teacher.job import Sampled, SamplingJob, ServerResult, ShardResult
from qcrd_core.teacher.lengths import check_prompt_lengths
from qcrd_core.teacher.plan import SamplingPlan, open_generation, plan_sampling, read_samples
from qcrd_core.teacher.prepare import PreparedTeacher
from qcrd_core.teacher.sample import sample_shards
from qcrd_core.teacher.servers.managed import teacher_endpoints
from qcrd_core.teacher.servers.pool import TeacherPool
from tests.support.tables import make_questions

SPEC = DatasetSpec(
    name="sums",
    source=WordProblemsSource(seed=0, num_train=1, num_validation=1, num_test=1),
    answer=AnswerSpec(kind="number", stop=("\n\n",)),
)
PREPARED = PreparedTeacher(
    name="stub", served_name="stub", identity={"type": "hub", "name": "stub"}, revision=None
)


def make_config(
    store: Path,
    endpoints: list[Any] | str | None,
    *,
    budget: dict[str, Any] | None = None,
    **teacher: Any,
) -> RunConfig:
    """Build a configuration around a teacher section."""
    model = {"type": "hub", "name": "stub"}
    content = {
        "run": {"name": "test", "store": str(store), "scratch": str(store / "scratch")},
        "data": {"dataset": "sums"},
        "teacher": {
            "model": model,
            "endpoints": endpoints,
            "num_samples": 2,
            "questions_per_shard": 3,
            "max_new_tokens": 16,
            "seed": 3,
            **teacher,
        },
        "discriminator": {"model": {"type": "scratch"}},
        "student": {"model": {"type": "scratch"}},
        "budget": budget or {},
    }
    return validate_config(content, "test")


def numbered_questions(count: int) -> pl.DataFrame:
    """Build that many different questions."""
    return make_questions([{"question_id": f"q{number:03d}"} for number in range(count)])


@dataclass
class Sampling:
    """A configuration with its questions; `run` samples what is missing."""

    config: RunConfig
    questions: pl.DataFrame
    spec: DatasetSpec = SPEC
    prepared: PreparedTeacher = PREPARED
    results: list[ShardResult] = field(default_factory=list)
    sampled: Sampled | None = None
    """Of the last `run`."""

    @property
    def servers(self) -> tuple[ServerResult, ...]:
        return self.sampled.servers

    @property
    def store(self) -> Store:
        return Store(self.config.run.store, self.config.run.scratch)

    def plan(self) -> SamplingPlan:
        identity = generation_identity(self.config, self.spec, self.prepared.identity)
        return plan_sampling(
            self.store,
            self.spec.name,
            identity,
            questions=self.questions,
            teacher=self.config.teacher,
        )

    def meter(self) -> Meter:
        return Meter(self.config.budget, tokens_of(self.table(), "run-1"))

    def run(self, max_shards: int | None = None) -> pl.DataFrame:
        scratch = self.config.run.scratch
        with teacher_endpoints(
            self.config.teacher, self.prepared, scratch, scratch / "vllm.log"
        ) as pool:
            return self.run_on(pool, max_shards)

    def run_on(self, pool: TeacherPool, max_shards: int | None = None) -> pl.DataFrame:
        plan = self.plan()
        open_generation(self.store, plan)
        job = SamplingJob(
            plan=plan,
            questions=self.questions,
            spec=self.spec,
            config=self.config,
            prepared=self.prepared,
            pool=pool,
            store=self.store,
            run_id="run-1",
            meter=self.meter(),
        )
        check_prompt_lengths(job)
        with progress("Sample teacher", plan.num_missing, "samples") as bar:
            self.sampled = sample_shards(job, plan.shards[:max_shards], bar)
        self.results += self.sampled.shards
        return self.table()

    def table(self) -> pl.DataFrame:
        return read_samples(
            self.store,
            self.plan().folder,
            questions=self.questions,
            num_samples=self.config.teacher.num_samples,
        )
