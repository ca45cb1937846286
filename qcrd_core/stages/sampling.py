"""Sample what the plan says is missing, several shards at a time on one resident engine."""

from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import copy_context
from typing import Any

import polars as pl

from qcrd_core.config import ImportedModel
from qcrd_core.context import RunContext
from qcrd_core.datasets.imported import read_imported
from qcrd_core.datasets.spec import DatasetSpec
from qcrd_core.progress import progress
from qcrd_core.stages.timing import timed
from qcrd_core.teacher.generation import generation_identity, rationales_folder
from qcrd_core.teacher.plan import SamplingPlan, open_generation, plan_sampling, read_samples
from qcrd_core.teacher.prepare import describe_teacher, prepare_teacher
from qcrd_core.teacher.sample import SamplingJob, ShardResult, check_prompt_lengths, sample_shard
from qcrd_core.teacher.server import TeacherPool, teacher_endpoints


def sample_teacher(context: RunContext) -> dict[str, Any]:
    """Bring the run's generation to K samples a training question.

    Starts no engine when nothing is missing, or when the rationales are imported.

    Args:
        context: The run.

    Returns:
        `folder` and counts: `num_stored` (reused ones included), `num_sampled`, `num_failed`,
        `num_tokens`, `num_retries`.

    Raises:
        SamplingError: If the teacher stays away or refuses everything. Finished shards are kept.
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
    if plan.shards:
        with timed(context, "sample_teacher"):
            results = _sample_missing(context, spec, questions, plan)
    num_stored = plan.num_stored + plan.reused.height
    return {"folder": plan.folder, "num_stored": num_stored, **_count(results)}


def read_rationales(context: RunContext) -> pl.DataFrame:
    """Table `rationales` of the run's training questions, as the teacher or an import gave them.

    Args:
        context: The run.

    Returns:
        Rows sorted by question_id and sample_idx; at most K a question.

    Raises:
        DataError: If a part is damaged, or there is no such imported generation.
    """
    questions, teacher = context.read_questions("train"), context.config.teacher
    environment = context.store.read_json(context.paths.environment)
    dataset, generation = environment["dataset"], environment["generation"]
    if isinstance(teacher.model, ImportedModel):
        return read_imported(
            context.store,
            dataset,
            teacher.model.generation,
            questions=questions,
            num_samples=teacher.num_samples,
        )
    folder = f"{rationales_folder(dataset)}/generation={generation}"
    return read_samples(context.store, folder, questions=questions, num_samples=teacher.num_samples)


def _sample_missing(
    context: RunContext, spec: DatasetSpec, questions: pl.DataFrame, plan: SamplingPlan
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
