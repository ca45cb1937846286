"""Has rationales that are too long for the run written again, between the vote and round 0.

Condensed are the rationales that rounds train on: positives and, if they are used, the teacher's
negatives. Both alike, because otherwise length and style would tell one from the other. A rationale
within the limit stays as it is: asking costs tokens, and a rewrite can only lose something. One
without an answer stays too, because nothing could be compared.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from data_schemas import Condensed
from qcrd_core.config.models import ImportedModel
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.progress import progress
from qcrd_core.run.context import RunContext, RunTeacher, timed
from qcrd_core.runtime.processes import run_job
from qcrd_core.stages.rounds import make_tokenizers, write_input
from qcrd_core.stages.sampling import check_budget, open_job
from qcrd_core.store.compact import join_many
from qcrd_core.student import jobs as student_jobs
from qcrd_core.teacher import condense
from qcrd_core.teacher.budget import Meter, tokens_of
from qcrd_core.teacher.generation import CONDENSES, generation_identity
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
        rows, rewrites = _rewrites(context, long)
        learnt = rows.select("rationale", "answer").with_columns(as_learnt(context))
        # `as_learnt` ends a missing rewrite with its answer; what is missing has no length.
        text = pl.when(rows["rationale"].is_not_null()).then(learnt["rationale"])
        lengths = _lengths(context, rows.select(text=text), "rewrites")
        found = condense.verdicts(
            rows.with_columns(num_tokens_after=lengths), max_tokens=setting.max_tokens
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


@dataclass(frozen=True, eq=False)
class _Part:
    """The long rationales of one teacher, with the numbers of their generation."""

    teacher: RunTeacher
    long: pl.DataFrame
    questions: pl.DataFrame
    """What the rewriter is asked."""
    plan: SamplingPlan

    def rewritten(self, rewrites: pl.DataFrame) -> pl.DataFrame:
        """Its rationales beside their rewrites, with the run's numbers."""
        rows = condense.rewritten(self.long, rewrites)
        return rows.with_columns(
            pl.col("sample_idx") + self.teacher.first_number,
            generation=pl.lit(self.plan.fingerprint),
        )


def _rewrites(context: RunContext, long: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sample the rewrites that the store lacks; rationales beside their rewrites, all rewrites.

    Rewrites belong to the generation that they condense, so another run with that teacher has them.
    """
    setting, model = context.config.teacher.condense, context.config.teacher.rewriter.model
    assert setting is not None
    assert not isinstance(model, ImportedModel)  # the configuration refuses it
    config = context.config.model_copy(update={"teacher": context.config.teacher.rewriter})
    spec = condense.rewriting_spec(context.read_spec(), setting.max_tokens, config.teacher.api)
    rewriter = replace(context, config=config)
    identity = generation_identity(config, spec, describe_teacher(model))
    parts = [_part(rewriter, each, long, spec.name, identity) for each in context.teachers]
    names = [part.plan.fingerprint for part in parts]
    meter = _meter(context, parts)
    for part in parts:
        open_generation(context.store, part.plan, names)
        if part.plan.shards:
            _sample(rewriter, spec, part.questions, part.plan, meter)
            join_many(context.store, part.plan.folder)
    rewrites = [_stored(context, part) for part in parts]
    rows = [part.rewritten(found) for part, found in zip(parts, rewrites, strict=True)]
    return pl.concat(rows), pl.concat(rewrites)


def _part(
    rewriter: RunContext,
    teacher: RunTeacher,
    long: pl.DataFrame,
    dataset: str,
    identity: Mapping[str, Any],
) -> _Part:
    """Plan the rewrites of one teacher's rationales."""
    own = long.with_columns(pl.col("sample_idx") - teacher.first_number).filter(
        pl.col("sample_idx").is_between(0, teacher.settings.num_samples - 1)
    )
    questions = condense.rewriting_questions(
        own.drop_nulls("answer"), rewriter.read_questions("train")
    )
    plan = plan_sampling(
        rewriter.store,
        dataset,
        {**identity, CONDENSES: teacher.generation},
        questions=questions,
        teacher=rewriter.config.teacher,
    )
    return _Part(teacher, own, questions, plan)


def _stored(context: RunContext, part: _Part, columns: Sequence[str] | None = None) -> pl.DataFrame:
    return read_samples(
        context.store,
        part.plan.folder,
        questions=part.questions,
        num_samples=1,
        columns=columns,
    )


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


def _meter(context: RunContext, parts: Sequence[_Part]) -> Meter:
    """What the run has spent so far, on samples and on rewrites."""
    names = ("run_id", "num_prompt_tokens", "num_tokens")
    paid = [read_all_rationales(context, names)]
    paid += [_stored(context, part, names) for part in parts]
    return Meter(context.config.budget, tokens_of(pl.concat(paid), context.paths.run_id))
