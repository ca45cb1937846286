"""Has rationales that are too long for the run written again, between the vote and round 0.

Condensed are the rationales that rounds train on: positives and, if they are used, the teacher's
negatives. Both alike, because otherwise length and style would tell one from the other. A rationale
within the limit stays as it is: asking costs tokens, and a rewrite can only lose something. One
without an answer stays too, because nothing could be compared.
"""

import logging
from dataclasses import replace
from typing import Any

import polars as pl

from data_schemas import Condensed
from qcrd_core.config.models import ImportedModel
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.progress import progress
from qcrd_core.run.context import RunContext, timed
from qcrd_core.run.records import Environment
from qcrd_core.runtime.processes import run_job
from qcrd_core.stages.rounds import make_tokenizers, write_input
from qcrd_core.stages.sampling import check_budget, open_job
from qcrd_core.store.compact import join_many
from qcrd_core.student import jobs as student_jobs
from qcrd_core.teacher import condense
from qcrd_core.teacher.budget import Meter, tokens_of
from qcrd_core.teacher.plan import SamplingPlan, open_generation, plan_sampling, read_samples
from qcrd_core.teacher.prepare import describe_teacher
from qcrd_core.teacher.rendering import describe_estimate
from qcrd_core.teacher.sample import sample_shards
from qcrd_core.vote.candidates import as_learnt, kept_rationales
from qcrd_core.vote.rationales import read_all_rationales

logger = logging.getLogger(__name__)


def condense_rationales(context: RunContext) -> dict[str, Any]:
    """Write table `condensed`: what became of each rationale above `teacher.condense.max_tokens`.

    The rewrites are sampled like everything of a teacher, so a killed or stopped start continues
    with what is missing, and several processes may do this at once.

    Args:
        context: The run, after the vote.

    Returns:
        The numbers of `summarize_condensed`; empty if the table already exists.

    Raises:
        SamplingError: If the rewriter does not answer or refuses everything, or the budget is used
            up. Finished shards are kept.
        LaunchError: If the local engine does not start.
    """
    setting = context.config.teacher.condense
    assert setting is not None  # the flow asks
    if context.store.exists(context.paths.condensed):
        return {}
    make_tokenizers(context)
    with timed(context, "condense"):
        kept = _kept(context)
        long = kept.filter(pl.col("num_tokens_before") > setting.max_tokens)
        plan, rewrites = _rewrites(context, long)
        rows = condense.rewritten(long, rewrites)
        learnt = rows.select("rationale", "answer").with_columns(as_learnt(context))
        # `as_learnt` ends a missing rewrite with its answer; what is missing has no length.
        text = pl.when(rows["rationale"].is_not_null()).then(learnt["rationale"])
        lengths = _lengths(context, rows.select(text=text), "rewrites")
        found = condense.verdicts(
            rows.with_columns(num_tokens_after=lengths),
            max_tokens=setting.max_tokens,
            generation=plan.fingerprint,
        )
    numbers = condense.summarize_condensed(found, kept.height, rewrites)
    context.write_metrics("condense", -1, numbers)
    # Written last: if it exists, this stage is done.
    context.store.write_table(context.paths.condensed, found, Condensed)
    logger.info(
        "%d of %d rationales are longer than %d tokens | %d rewritten | %d stay as they are",
        *(found.height, kept.height, setting.max_tokens),
        *(numbers["num_condensed"], found.height - int(numbers["num_condensed"] or 0)),
    )
    return numbers


def _kept(context: RunContext) -> pl.DataFrame:
    """Rationales that the run trains on, with their length: also `original` and num_tokens_before.

    None if neither a loss nor a target reads rationales.
    """
    rows = kept_rationales(context).drop_nulls("rationale")
    rows = rows.filter(pl.col("rationale").str.strip_chars() != "")
    config = context.config
    if not config.loss.reads_rationales and config.student.target == "label":
        rows = rows.clear()
    text = rows.with_columns(as_learnt(context))["rationale"]
    lengths = _lengths(context, pl.DataFrame({"text": text}), "rationales")
    return rows.with_columns(original="rationale", num_tokens_before=lengths)


def _lengths(context: RunContext, texts: pl.DataFrame, unit: str) -> pl.Series:
    """Tokens of each text for the student; null for null."""
    path = write_input(context, f"condense_{unit}", texts)
    target = path.with_suffix(".counts.parquet")
    job = student_jobs.CountTokens(context.config, context.paths.run_id, path, target)
    with progress(f"Measure {unit}", texts.height, "texts") as bar:
        run_job(
            student_jobs.count_tokens,
            job,
            log=context.log("condense"),
            on_event=lambda event: bar.advance(event["advance"]),
        )
    return pl.read_parquet(target)["num_tokens"]


def _rewrites(context: RunContext, long: pl.DataFrame) -> tuple[SamplingPlan, pl.DataFrame]:
    """Sample the rewrites that the store lacks; returns their plan, and all rewrites."""
    setting, model = context.config.teacher.condense, context.config.teacher.rewriter.model
    assert setting is not None
    assert not isinstance(model, ImportedModel)  # the configuration refuses it
    config = context.config.model_copy(update={"teacher": context.config.teacher.rewriter})
    spec = condense.rewriting_spec(context.read_spec(), setting.max_tokens, config.teacher.api)
    questions = condense.rewriting_questions(
        long.drop_nulls("answer"), context.read_questions("train")
    )
    identity = condense.rewriting_identity(
        config, spec, describe_teacher(model), _generation(context)
    )
    plan = plan_sampling(
        context.store, spec.name, identity, questions=questions, teacher=config.teacher
    )
    open_generation(context.store, plan)
    if plan.shards:
        meter = _meter(context, questions, plan)
        _sample(replace(context, config=config), spec, questions, plan, meter)
        join_many(context.store, plan.folder)
    return plan, read_samples(context.store, plan.folder, questions=questions, num_samples=1)


def _sample(
    context: RunContext,
    spec: DatasetSpec,
    questions: pl.DataFrame,
    plan: SamplingPlan,
    meter: Meter,
) -> None:
    """Sample the plan's rewrites; the context's teacher is the rewriter."""
    check_budget(meter, plan, num_sampled=0)
    logger.info("Condensing: %s", describe_estimate(context.config, spec, questions, plan))
    with (
        open_job(context, spec, questions, plan, meter) as job,
        progress("Condense rationales", plan.num_missing, "rationales") as bar,
    ):
        sampled = sample_shards(job, plan.shards, bar)
    check_budget(meter, plan, num_sampled=plan.num_missing - sampled.num_left)


def _meter(context: RunContext, questions: pl.DataFrame, plan: SamplingPlan) -> Meter:
    """What the run has spent so far, on samples and on rewrites."""
    names = ("run_id", "num_prompt_tokens", "num_tokens")
    paid = [
        read_all_rationales(context, names),
        read_samples(context.store, plan.folder, questions=questions, num_samples=1, columns=names),
    ]
    return Meter(context.config.budget, tokens_of(pl.concat(paid), context.paths.run_id))


def _generation(context: RunContext) -> str:
    """Fingerprint of the run's rationales."""
    model = context.config.teacher.model
    if isinstance(model, ImportedModel):
        return model.generation
    environment = context.store.read_json(context.paths.environment, Environment)
    assert environment.generation is not None
    return environment.generation
