"""Sample what the plan says is missing, several shards at a time on one resident engine."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import copy_context
from typing import Any

import polars as pl

from qcrd_core.compact import join_many
from qcrd_core.config import ImportedModel
from qcrd_core.context import RunContext
from qcrd_core.datasets.imported import read_imported
from qcrd_core.datasets.spec import DatasetSpec
from qcrd_core.errors import SamplingError
from qcrd_core.progress import progress
from qcrd_core.stages.timing import timed
from qcrd_core.teacher.budget import Meter, tokens_of
from qcrd_core.teacher.generation import generation_identity, rationales_folder
from qcrd_core.teacher.plan import SamplingPlan, open_generation, plan_sampling, read_samples
from qcrd_core.teacher.prepare import describe_teacher, prepare_teacher
from qcrd_core.teacher.rendering import describe_estimate
from qcrd_core.teacher.sample import SamplingJob, ShardResult, check_prompt_lengths, sample_shard
from qcrd_core.teacher.server import TeacherPool, teacher_endpoints

logger = logging.getLogger(__name__)

_KEYS = ("question_id", "sample_idx")


def sample_teacher(context: RunContext) -> dict[str, Any]:
    """Bring the run's generation to K samples a training question.

    Starts no engine when nothing is missing, or when the rationales are imported.

    Args:
        context: The run.

    Returns:
        `folder` and counts: `num_stored` (reused ones included), `num_sampled`, `num_failed`,
        `num_tokens`, `num_retries`.

    Raises:
        SamplingError: If the teacher stays away or refuses everything, or the budget ends before
            all is sampled. Finished shards are kept, and all that was paid for within a budget.
        LaunchError: If the local engine does not start.
        DataError: If a prompt exceeds the teacher's context.
    """
    config, model = context.config, context.config.teacher.model
    if isinstance(model, ImportedModel):
        rows = read_rationales(context)
        return {"folder": None, "num_stored": rows.height, **_count([])}
    spec, questions = context.read_spec(), context.read_questions("train")
    plan = plan_sampling(
        context.store,
        spec.name,
        generation_identity(config, spec, describe_teacher(model)),
        questions=questions,
        teacher=config.teacher,
    )
    open_generation(context.store, plan)
    results: list[ShardResult] = []
    # Rejected ones too: they were paid for.
    paid = _read_rationales(context, ("run_id", "num_prompt_tokens", "num_tokens"))
    meter = Meter(config.budget, tokens_of(paid, context.paths.run_id))
    if plan.shards:
        check_budget(meter, plan, num_sampled=0)
        logger.info("To sample: %s", describe_estimate(config, spec, questions, plan))
        with timed(context, "sample_teacher"):
            results = _sample_missing(context, spec, questions, plan, meter)
        check_budget(meter, plan, num_sampled=sum(result.num_rows for result in results))
    joined = join_many(context.store, plan.folder)
    if joined is not None:
        logger.info("Joined %d parts to %d | %s", joined.num_before, joined.num_after, plan.folder)
    num_stored = plan.num_stored + plan.reused.height
    return {"folder": plan.folder, "num_stored": num_stored, **_count(results)}


def read_rationales(context: RunContext, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Table `rationales` of the run's training questions, as the teacher or an import gave them.

    Args:
        context: The run.
        columns: Only these: ten million texts are several gigabytes. None takes all.

    Returns:
        Rows sorted by question_id and sample_idx; at most K a question, those that a curator
        rejected left out.

    Raises:
        DataError: If a part is damaged, or there is no such imported generation.
    """
    rows = _read_rationales(
        context, None if columns is None else [*dict.fromkeys([*_KEYS, *columns])]
    )
    rows = rows.join(context.read_marks("reject"), on=_KEYS, how="anti", maintain_order="left")
    return rows if columns is None else rows.select(columns)


def _read_rationales(context: RunContext, columns: Sequence[str] | None) -> pl.DataFrame:
    questions, teacher = context.read_questions("train"), context.config.teacher
    environment = context.store.read_json(context.paths.environment)
    dataset, generation = environment["dataset"], environment["generation"]
    if isinstance(teacher.model, ImportedModel):
        rows = read_imported(
            context.store,
            dataset,
            teacher.model.generation,
            questions=questions,
            num_samples=teacher.num_samples,
        )
        return rows if columns is None else rows.select(columns)
    folder = f"{rationales_folder(dataset)}/generation={generation}"
    return read_samples(
        context.store,
        folder,
        questions=questions,
        num_samples=teacher.num_samples,
        columns=columns,
    )


def check_budget(meter: Meter, plan: SamplingPlan, *, num_sampled: int) -> None:
    """Refuse to go on where the budget is spent and samples are missing.

    Args:
        meter: What the run took.
        plan: What it is to sample.
        num_sampled: How many of the plan's samples are there now.

    Raises:
        SamplingError: If the budget is spent before all is sampled.
    """
    num_missing = plan.num_missing - num_sampled
    if meter.excess is not None and num_missing:
        msg = (
            f"Sampling must stay within {meter.excess}, and {num_missing:,} of "
            f"{plan.num_wanted:,} samples are missing. All that was paid for is kept: raise the "
            "limit and run the same again, and only the rest is asked."
        )
        raise SamplingError(msg)


def _sample_missing(
    context: RunContext,
    spec: DatasetSpec,
    questions: pl.DataFrame,
    plan: SamplingPlan,
    meter: Meter,
) -> list[ShardResult]:
    config, model = context.config, context.config.teacher.model
    assert not isinstance(model, ImportedModel)  # such rationales are never missing
    prepared = prepare_teacher(model, config.run.scratch)
    log = context.scratch / "vllm.log"
    with teacher_endpoints(config.teacher, prepared, config.run.scratch, log) as pool:
        job = SamplingJob(
            plan=plan,
            questions=questions,
            spec=spec,
            config=config,
            prepared=prepared,
            pool=pool,
            store=context.store,
            run_id=context.paths.run_id,
            meter=meter,
        )
        check_prompt_lengths(job)
        return _sample_shards(job, pool)


def _sample_shards(job: SamplingJob, pool: TeacherPool) -> list[ShardResult]:
    executor = ThreadPoolExecutor(job.config.teacher.shards_in_flight, "shard")
    with progress("Sample teacher", job.plan.num_missing, "samples") as bar:
        # With the caller's context, so that an orchestrator knows whose log lines these are.
        shards = [
            executor.submit(copy_context().run, sample_shard, job, shard, bar)
            for shard in job.plan.shards
        ]
        try:
            return [shard.result() for shard in as_completed(shards)]
        except BaseException:
            # Also on an interrupt: threads that are under way must not bring the engine back.
            pool.close()
            raise
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


def _count(results: list[ShardResult]) -> dict[str, int]:
    return {
        "num_sampled": sum(result.num_rows for result in results),
        "num_failed": sum(result.num_failed for result in results),
        "num_tokens": sum(result.num_tokens for result in results),
        "num_retries": sum(result.num_retries for result in results),
    }
