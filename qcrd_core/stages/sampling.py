"""Samples the missing rationales of a plan, several shards at a time."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import polars as pl

from qcrd_core.config.models import ImportedModel
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.errors import SamplingError
from qcrd_core.progress import progress
from qcrd_core.run.context import RunContext, timed
from qcrd_core.stages.rates import Rates
from qcrd_core.store.compact import join_many
from qcrd_core.teacher.budget import Meter, tokens_of
from qcrd_core.teacher.generation import generation_folder, generation_identity
from qcrd_core.teacher.job import Sampled, SamplingJob, joined
from qcrd_core.teacher.lengths import check_prompt_lengths
from qcrd_core.teacher.plan import SamplingPlan, open_generation, plan_sampling, read_samples
from qcrd_core.teacher.prepare import describe_teacher, prepare_teacher
from qcrd_core.teacher.rendering import describe_estimate
from qcrd_core.teacher.retry import failed_reasons
from qcrd_core.teacher.sample import sample_shards
from qcrd_core.teacher.servers.managed import teacher_endpoints
from qcrd_core.vote.rationales import read_all_rationales, read_rationales
from qcrd_core.vote.settled import num_needed, waves

logger = logging.getLogger(__name__)

_NOTHING = Sampled(shards=(), servers=(), num_elsewhere=0, num_twice=0, num_left=0)


def sample_teacher(context: RunContext) -> dict[str, Any]:
    """Complete the generation of each teacher to its K samples per training question.

    Starts no engine if nothing is missing, or if the rationales are imported. Several processes may
    do this at once on one store; each returns when all samples are stored. Several teachers are
    asked one after the other, within one budget.

    Args:
        context: The run.

    Returns:
        Counts: `num_stored` (before, including reused ones), `num_sampled` (by this process),
        `num_elsewhere` (by other processes, during this call), `num_twice` (by this process,
        although another one was first), `num_failed`, `num_tokens`, `num_retries`.

    Raises:
        SamplingError: If a teacher does not answer or refuses everything, or the budget is used
            up before all samples are stored. Finished shards are kept; with a budget, so is
            everything that was paid for.
        LaunchError: If the local engine does not start.
        DataError: If a prompt exceeds the teacher's context.
    """
    asked = _asked(context)
    if not asked:
        return {"num_stored": read_rationales(context).height, **_count(_NOTHING)}
    spec, questions = context.read_spec(), context.read_questions("train")
    plans = [_plan(each, spec, questions) for each in asked]
    # Rejected rationales count too: they were paid for.
    paid = read_all_rationales(context, ("run_id", "num_prompt_tokens", "num_tokens"))
    meter = Meter(context.config.budget, tokens_of(paid, context.paths.run_id))
    missing = [pair for pair in zip(asked, plans, strict=True) if pair[1].shards]
    found = [_NOTHING]
    if missing:
        rates = Rates(context)
        with timed(context, "sample_teacher"):
            found += [_sample_missing(*each, spec, questions, meter, rates) for each in missing]
    for plan in plans:
        _join_parts(context, plan.folder)
    num_stored = sum(plan.num_stored + plan.reused.height for plan in plans)
    return {"num_stored": num_stored, **_count(joined(found))}


def find_missing(context: RunContext) -> int:
    """Store the samples of `teacher.reuse` and count those that are still missing.

    Args:
        context: The run.

    Returns:
        Missing samples of all teachers; 0 for imported rationales.

    Raises:
        DataError: If a part is damaged.
        StoreError: If a folder of `teacher.reuse` has no generation.json.
    """
    asked = _asked(context)
    if not asked:
        return 0
    spec, questions = context.read_spec(), context.read_questions("train")
    return sum(_plan(each, spec, questions).num_missing for each in asked)


def _asked(context: RunContext) -> list[RunContext]:
    """The run once per teacher that is asked, with that teacher alone."""
    configs = [each for each in context.config.per_teacher if not each.teacher.is_imported]
    return [replace(context, config=config) for config in configs]


def _join_parts(context: RunContext, folder: str) -> None:
    done = join_many(context.store, folder)
    if done is not None:
        logger.info("Joined %d parts into %d | %s", done.num_before, done.num_after, folder)


def _plan(context: RunContext, spec: DatasetSpec, questions: pl.DataFrame) -> SamplingPlan:
    config, model = context.config, context.config.teacher.model
    assert not isinstance(model, ImportedModel)  # imported rationales are never missing
    identity = generation_identity(config, spec, describe_teacher(model))
    plan = plan_sampling(
        context.store,
        spec.name,
        identity,
        questions=questions,
        teacher=config.teacher,
        needed=_needed(context, generation_folder(spec.name, identity), questions),
    )
    open_generation(context.store, plan, context.environment.generations(None))
    return plan


def _needed(context: RunContext, folder: str, questions: pl.DataFrame) -> pl.DataFrame | None:
    """question_id and num_needed: samples that each question needs by now; None if always K."""
    teacher = context.config.teacher
    if teacher.stop_when_settled is None:
        return None
    rows = read_samples(
        context.store,
        folder,
        questions=questions,
        num_samples=teacher.num_samples,
        columns=("question_id", "sample_idx", "answer"),
    )
    asked = num_needed(rows, num_samples=teacher.num_samples, bound=teacher.stop_when_settled)
    first = pl.col("num_needed").fill_null(waves(teacher.num_samples)[0])
    return (
        questions.select("question_id")
        .join(asked, on="question_id", how="left")
        .with_columns(first)
    )


def check_budget(meter: Meter, plan: SamplingPlan, *, num_sampled: int) -> None:
    """Stop if the budget is used up and samples are still missing.

    Args:
        meter: Tokens and cost of the run.
        plan: The plan of the run.
        num_sampled: Samples of the plan that are stored now.

    Raises:
        SamplingError: If the budget is used up before all samples are stored.
    """
    num_missing = plan.num_missing - num_sampled
    if meter.excess is not None and num_missing:
        msg = (
            f"The budget is used up ({meter.excess}), and {num_missing:,} of {plan.num_wanted:,} "
            "samples are still missing. Everything that was paid for is kept; raise the limit and "
            "run the same command to sample the rest."
        )
        raise SamplingError(msg)


@contextmanager
def open_job(
    context: RunContext,
    spec: DatasetSpec,
    questions: pl.DataFrame,
    plan: SamplingPlan,
    meter: Meter,
) -> Iterator[SamplingJob]:
    """Prepare the context's teacher and its servers, which stop when the block ends.

    Args:
        context: The run; its `teacher` is the model that is asked.
        spec: The data set, with the prompt.
        questions: Table `questions` that the plan asks.
        plan: The missing samples.
        meter: Counts what they cost.

    Yields:
        The inputs of `sample_shards`.

    Raises:
        LaunchError: If the local engine does not start.
        SamplingError: If the servers do not answer.
    """
    config, model = context.config, context.config.teacher.model
    assert not isinstance(model, ImportedModel)  # imported rationales are never missing
    prepared = prepare_teacher(model, config.run.scratch)
    log = context.scratch / "vllm.log"
    with teacher_endpoints(config.teacher, prepared, config.run.scratch, log) as pool:
        yield SamplingJob(
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


def _sample_missing(
    context: RunContext,
    plan: SamplingPlan,
    spec: DatasetSpec,
    questions: pl.DataFrame,
    meter: Meter,
    rates: Rates,
) -> Sampled:
    """Sample the plan of the context's teacher and, if it asks in waves, of the further waves."""
    check_budget(meter, plan, num_sampled=0)
    name = rates.name_of(context)
    logger.info("Sampling %s: %s", name, describe_estimate(context.config, spec, questions, plan))
    with open_job(context, spec, questions, plan, meter) as job:
        check_prompt_lengths(job)
        start, began = time.monotonic(), datetime.now(UTC)
        sampled, last = _sample_waves(context, job)
        seconds = time.monotonic() - start
    if sampled.num_elsewhere:
        logger.info(
            "Other samplers stored %d samples; %d samples drawn here were duplicates and dropped",
            sampled.num_elsewhere,
            sampled.num_twice,
        )
    rates.add(context, plan.folder, sampled, began, seconds)
    check_budget(meter, last, num_sampled=last.num_missing - sampled.num_left)
    _say_failed(context, questions, last)
    return sampled


def _sample_waves(context: RunContext, job: SamplingJob) -> tuple[Sampled, SamplingPlan]:
    """Sample a job's plan, and then what `teacher.stop_when_settled` still asks for; the last plan.

    Without that setting there is one wave.
    """
    found = []
    while True:
        with progress("Sample teacher", job.plan.num_missing, "samples") as bar:
            found.append(sample_shards(job, job.plan.shards, bar))
        if job.config.teacher.stop_when_settled is None or job.meter.is_spent:
            break
        further = _plan(context, job.spec, job.questions)
        if not further.shards:
            break
        job = replace(job, plan=further)
    return joined(found), job.plan


def _say_failed(context: RunContext, questions: pl.DataFrame, plan: SamplingPlan) -> None:
    """Log why samples failed, with their number per reason."""
    num_samples = context.config.teacher.num_samples
    reasons = failed_reasons(
        context.store, plan.folder, questions=questions, num_samples=num_samples
    )
    if reasons.height:
        shown = "; ".join(f"{count} x {error}" for error, count in reasons.head(3).rows())
        logger.warning(
            "The teacher refused %d of %d samples: %s. `qcrd run --retry-failed` asks for them "
            "again, before the vote.",
            reasons["num_rows"].sum(),
            plan.num_wanted,
            shown,
        )


def _count(sampled: Sampled) -> dict[str, int]:
    return {
        "num_sampled": sum(result.num_rows for result in sampled.shards),
        "num_elsewhere": sampled.num_elsewhere,
        "num_twice": sampled.num_twice,
        "num_failed": sum(result.num_failed for result in sampled.shards),
        "num_tokens": sum(result.num_tokens for result in sampled.shards),
        "num_retries": sum(server.num_failures for server in sampled.servers),
    }
