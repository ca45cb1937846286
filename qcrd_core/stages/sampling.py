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
from qcrd_core.teacher.servers.launch import num_engines
from qcrd_core.teacher.servers.managed import teacher_endpoints
from qcrd_core.vote.rationales import read_all_rationales, read_rationales
from qcrd_core.vote.settled import num_needed, waves

logger = logging.getLogger(__name__)

_NOTHING = Sampled(shards=(), servers=(), num_elsewhere=0, num_twice=0, num_left=0)


def sample_teacher(context: RunContext) -> dict[str, Any]:
    """Complete the run's generation to K samples per training question.

    Starts no engine if nothing is missing, or if the rationales are imported. Several processes may
    do this at once on one store; each returns when all samples are stored.

    Args:
        context: The run.

    Returns:
        `folder` and counts: `num_stored` (before, including reused ones), `num_sampled` (by this
        process), `num_elsewhere` (by other processes, during this call), `num_twice` (by this
        process, although another one was first), `num_failed`, `num_tokens`, `num_retries`.

    Raises:
        SamplingError: If the teacher does not answer or refuses everything, or the budget is used
            up before all samples are stored. Finished shards are kept; with a budget, so is
            everything that was paid for.
        LaunchError: If the local engine does not start.
        DataError: If a prompt exceeds the teacher's context.
    """
    config, model = context.config, context.config.teacher.model
    if isinstance(model, ImportedModel):
        rows = read_rationales(context)
        return {"folder": None, "num_stored": rows.height, **_count(_NOTHING)}
    spec, questions = context.read_spec(), context.read_questions("train")
    plan = _plan(context, spec, questions)
    num_stored, sampled = plan.num_stored + plan.reused.height, _NOTHING
    # Rejected rationales count too: they were paid for.
    paid = read_all_rationales(context, ("run_id", "num_prompt_tokens", "num_tokens"))
    meter = Meter(config.budget, tokens_of(paid, context.paths.run_id))
    if plan.shards:
        check_budget(meter, plan, num_sampled=0)
        logger.info("Sampling the teacher: %s", describe_estimate(config, spec, questions, plan))
        with timed(context, "sample_teacher"):
            sampled, plan = _sample_missing(context, spec, questions, plan, meter)
        check_budget(meter, plan, num_sampled=plan.num_missing - sampled.num_left)
        _say_failed(context, questions, plan)
    joined = join_many(context.store, plan.folder)
    if joined is not None:
        logger.info(
            "Joined %d parts into %d | %s", joined.num_before, joined.num_after, plan.folder
        )
    return {"folder": plan.folder, "num_stored": num_stored, **_count(sampled)}


def find_missing(context: RunContext) -> int:
    """Store the samples of `teacher.reuse` and count those that are still missing.

    Args:
        context: The run.

    Returns:
        Missing samples; 0 for imported rationales.

    Raises:
        DataError: If a part is damaged.
        StoreError: If a folder of `teacher.reuse` has no generation.json.
    """
    if isinstance(context.config.teacher.model, ImportedModel):
        return 0
    return _plan(context, context.read_spec(), context.read_questions("train")).num_missing


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
    open_generation(context.store, plan)
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
    spec: DatasetSpec,
    questions: pl.DataFrame,
    plan: SamplingPlan,
    meter: Meter,
) -> tuple[Sampled, SamplingPlan]:
    """Sample the plan and, if questions are drawn in waves, the plans of the further waves."""
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
    _note_rates(context, sampled, began, seconds)
    return sampled, last


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


def _note_rates(context: RunContext, sampled: Sampled, began: datetime, seconds: float) -> None:
    """Store the rates of this start, for the report and for `qcrd plan`."""
    teacher, servers = context.config.teacher, sampled.servers
    num_gpus = sum(server.num_samples > 0 for server in servers)
    if teacher.endpoints is None:
        num_gpus = num_engines(teacher.server) * teacher.server.tensor_parallel_size
    numbers = {
        **_drawn(context, sampled, began),
        # The protocol does not report GPUs, so each server of `endpoints` counts as one.
        "num_gpus": num_gpus,
        "seconds": seconds,
    }
    context.write_metrics("sampling", -1, numbers)
    rates = {}
    for server in servers:
        rates[f"{server.url} tokens_per_second"] = server.num_tokens / seconds
        rates[f"{server.url} concurrency"] = server.concurrency
        rates[f"{server.url} failures"] = server.num_failures
        rates[f"{server.url} drains"] = server.num_drains
        logger.info(
            "%s | %d samples | %.0f tok/s | concurrency %d | failures %d | drained %d times",
            server.url,
            server.num_samples,
            server.num_tokens / seconds,
            server.concurrency,
            server.num_failures,
            server.num_drains,
        )
    context.write_metrics("servers", -1, rates)


def _drawn(context: RunContext, sampled: Sampled, began: datetime) -> dict[str, int]:
    """Samples and tokens that the servers returned since `began`."""
    names = ("num_prompt_tokens", "num_tokens")
    if sampled.num_elsewhere and context.config.teacher.endpoints is not None:
        # Other samplers used the same servers, so their samples count for the servers' speed too.
        # Without `endpoints`, each sampler has its own engine.
        rows = read_all_rationales(context, ("run_id", "created_at", *names))
        rows = rows.filter(run_id=context.paths.run_id).filter(pl.col("created_at") >= began)
        sums = rows.select(pl.col(names).cast(pl.Int64).sum()).row(0)
        return {"num_samples": rows.height, **dict(zip(names, sums, strict=True))}
    return {
        "num_samples": sum(result.num_rows for result in sampled.shards),
        **{name: sum(getattr(result, name) for result in sampled.shards) for name in names},
    }


def _count(sampled: Sampled) -> dict[str, int]:
    return {
        "num_sampled": sum(result.num_rows for result in sampled.shards),
        "num_elsewhere": sampled.num_elsewhere,
        "num_twice": sampled.num_twice,
        "num_failed": sum(result.num_failed for result in sampled.shards),
        "num_tokens": sum(result.num_tokens for result in sampled.shards),
        "num_retries": sum(server.num_failures for server in sampled.servers),
    }
