"""The rounds: tokenizers, negatives, scores, training, validation, and the end of a run.

Each function does one step of one round, in a child process, unless the store already has the
step's result.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from data_schemas import Metrics
from qcrd_core.config.method import Infer, NegativesSection
from qcrd_core.config.models import ScratchEncoder
from qcrd_core.discriminator import jobs as discriminator_jobs
from qcrd_core.discriminator.pairs import BATCH_SIZE
from qcrd_core.discriminator.scores import write_scores
from qcrd_core.errors import TrainingError
from qcrd_core.evaluation import best_round
from qcrd_core.progress import Bar, progress
from qcrd_core.report.page import write_report
from qcrd_core.run.context import RunContext, RunJob, timed
from qcrd_core.run.records import Result
from qcrd_core.runtime.processes import Emit, JobT, ValueT, run_job
from qcrd_core.store.filesystem import access_error
from qcrd_core.student import jobs as student_jobs
from qcrd_core.student.confidence import validated_calibration
from qcrd_core.student.metadata import write_calibration
from qcrd_core.training import jobs as training_jobs
from qcrd_core.vote.candidates import candidates, training_labels
from qcrd_core.vote.rationales import read_rationales


def check_student(context: RunContext) -> dict[str, Any]:
    """Load the student and check the length of the questions, before the teacher is sampled.

    Raises:
        ConfigError: If a model or tokenizer cannot be loaded.
        DataError: If a question is too long for the student.
    """
    if context.store.is_published(context.paths.tokenizer):
        return {}
    with timed(context, "check_student"):
        job = RunJob(context.config, context.paths.run_id)
        return run_job(student_jobs.check_student, job, log=context.log("check_student")).value


def make_tokenizers(context: RunContext) -> dict[str, Any]:
    """Publish the run's tokenizers.

    Raises:
        ConfigError: If a tokenizer cannot be loaded.
        DataError: If a question is too long for the student.
    """
    if context.store.is_published(context.paths.tokenizer):
        return {}
    labels = training_labels(context)
    columns = [labels["question"], labels["label"], read_rationales(context)["rationale"]]
    texts = pl.concat([column.alias("text") for column in columns]).drop_nulls()
    path = write_input(context, "texts", texts.to_frame())
    with timed(context, "make_tokenizers"):
        job = student_jobs.MakeTokenizers(context.config, context.paths.run_id, path)
        return run_job(student_jobs.make_tokenizers, job, log=context.log("make_tokenizers")).value


def sample_negatives(context: RunContext, round_: int, checkpoint: int) -> dict[str, Any]:
    """Let the student of round t - j write the negatives of round t.

    Args:
        context: The run.
        round_: t, the round that trains on them.
        checkpoint: t - j, the round whose student writes them.

    Returns:
        Counts; empty if the negatives already exist.
    """
    if context.store.exists(context.paths.metrics_part("negatives", round_)):
        return {}
    job = student_jobs.SampleNegatives(context.config, context.paths.run_id, round_, checkpoint)
    num_texts = context.read_questions("train").height * context.config.negatives.num_samples
    step = _Step(context, "sample_negatives", round_, num_texts, "rationales")
    return step.run(student_jobs.sample_negatives, job)


def negatives_checkpoint(negatives: NegativesSection, round_: int) -> int | None:
    """The round whose student writes the negatives of `round_`; None if no student does."""
    if not negatives.student or round_ == 0:
        return None
    # Before round j there is no student of j rounds before, and an untrained one writes noise.
    return round_ - negatives.lag if round_ >= negatives.lag else None


def rounds_waiting_for(context: RunContext, checkpoint: int) -> list[int]:
    """Rounds for which the student of round `checkpoint` must still write the negatives."""
    return [
        round_
        for round_ in range(checkpoint + 1, context.config.training.num_rounds)
        if negatives_checkpoint(context.config.negatives, round_) == checkpoint
        and not context.store.exists(context.paths.metrics_part("negatives", round_))
    ]


def score_rationales(context: RunContext, round_: int) -> dict[str, Any]:
    """Train the discriminator and let it score every candidate rationale of the round.

    If no loss reads a score, there is no discriminator, and the scores are null.
    """
    if context.store.exists(context.paths.scores(round_)):
        return {}
    rows, counts = candidates(context, round_)
    context.write_metrics("data", round_, counts, part="candidates")
    if not context.config.loss.reads_quality:
        blank = pl.lit(None, pl.Float64).alias("quality_score")
        write_scores(context, round_, rows.with_columns(blank))
        return {"num_scored": 0}
    job = discriminator_jobs.ScoreRationales(
        context.config,
        context.paths.run_id,
        round_,
        write_input(context, "candidates", rows),
        _discriminator_tokenizer(context),
    )
    config = context.config.discriminator
    num_steps = config.pretrain_steps if round_ == 0 else config.update_steps
    num_discriminators = 2 if config.fit == "cross_fit" else 1
    num_texts = num_discriminators * num_steps * BATCH_SIZE + rows.height
    step = _Step(context, "score_rationales", round_, num_texts, "texts")
    return step.run(discriminator_jobs.score_rationales, job)


def train_round(context: RunContext, round_: int) -> dict[str, Any]:
    """Train the student for one round.

    Raises:
        TrainingError: If the loss is not finite, or training was interrupted; its checkpoint is
            kept.
    """
    if context.store.exists(context.paths.metrics_part("train", round_)):
        return {}
    labels = training_labels(context)
    path = write_input(context, "labels", labels)
    num_steps = context.config.training.steps_in_round(labels.height)
    job = training_jobs.TrainRound(context.config, context.paths.run_id, round_, path)
    step = _Step(context, "train", round_, num_steps, "steps")
    trained = step.run(training_jobs.train_round, job)
    if trained.interrupted:
        msg = (
            f"Training was interrupted at step {trained.global_step} of round {round_}. The "
            "checkpoint is saved; run the same command to resume."
        )
        raise TrainingError(msg)
    return {"loss": trained.loss}


def evaluate(
    context: RunContext, split: str, round_: int, infer: Infer | None = None
) -> dict[str, Any]:
    """Let the student of a round answer the questions of a split; `infer` None is as configured."""
    job = student_jobs.AnswerSplit(context.config, context.paths.run_id, round_, split, infer)
    if context.store.exists(context.paths.metrics_part(job.stage, round_)):
        return {}
    evaluation = context.config.evaluation
    num_questions = context.read_questions(split).height
    num_texts = num_questions * evaluation.texts_per_question(infer or evaluation.infer)
    step = _Step(context, f"answer_{job.stage}", round_, num_texts, "answers")
    return step.run(student_jobs.answer_split, job)


def prune(context: RunContext, round_: int) -> list[str]:
    """Delete checkpoints that neither a later round nor the result needs.

    Kept are the students of the last j rounds, because they write the negatives of later rounds,
    the best student, and the newest discriminator.

    Args:
        context: The run.
        round_: The newest validated round.

    Returns:
        Deleted folders.
    """
    store, paths, negatives = context.store, context.paths, context.config.negatives
    best = best_round(store.read_table(paths.metrics, Metrics))
    oldest = max(0, round_ + 1 - negatives.lag) if negatives.student else round_ + 1
    old = [paths.student(r) for r in range(oldest) if r != best]
    old += [paths.discriminator(r) for r in range(_newest_discriminator(context, round_))]
    deleted = [rel for rel in old if store.exists(rel)]
    for rel in deleted:
        store.delete(rel)
    return deleted


def finish(context: RunContext) -> dict[str, Any]:
    """Test the best student once, publish it, write result and report, and delete checkpoints.

    Returns:
        The run's result: `round`, `validation_accuracy`, and `test` with the test metrics.

    Raises:
        DataError: If no round was validated.
    """
    store, paths = context.store, context.paths
    metrics = store.read_table(paths.metrics, Metrics)
    best = best_round(metrics)
    if not store.is_published(paths.best_student):
        evaluate(context, "test", best)
        for infer in context.config.evaluation.compare:
            evaluate(context, "test", best, infer)
        target = store.local(paths.best_student)
        copy = target.with_name(f"_tmp-{target.name}")
        student = store.fetch_folder(paths.student(best))
        with store.explained(paths.best_student, "written"):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(student, copy)
            calibration = validated_calibration(context, best)
            if calibration is not None:
                write_calibration(copy, calibration)
        store.publish_folder(copy, paths.best_student)
    result = _result(store.read_table(paths.metrics, Metrics), best)
    write_report(store, paths.run_id)
    store.delete(f"{paths.root}/checkpoints")
    shutil.rmtree(context.scratch / "inputs", ignore_errors=True)
    # Written last: if it exists, the run is complete.
    store.write_json(paths.result, result)
    return result.model_dump()


def _result(metrics: pl.DataFrame, best: int) -> Result:
    def values(stage: str) -> dict[str, float]:
        rows = metrics.filter(pl.col("stage") == stage, pl.col("round") == best)
        return dict(rows.select("name", "value").iter_rows())

    return Result(
        round=best, validation_accuracy=values("validation")["accuracy"], test=values("test")
    )


def _newest_discriminator(context: RunContext, round_: int) -> int:
    for candidate in range(round_, -1, -1):
        if context.store.is_published(context.paths.discriminator(candidate)):
            return candidate
    return 0


def _discriminator_tokenizer(context: RunContext) -> Path:
    is_own = not isinstance(context.config.discriminator_model, ScratchEncoder)
    paths = context.paths
    rel = paths.discriminator_tokenizer if is_own else paths.tokenizer
    return context.store.fetch_folder(rel)


def write_input(context: RunContext, name: str, frame: pl.DataFrame) -> Path:
    """Write a job's input table to the run's scratch folder.

    Args:
        context: The run.
        name: Name of the file, without its ending.
        frame: The table.

    Returns:
        The file.

    Raises:
        StoreError: If it cannot be written.
    """
    path = context.scratch / "inputs" / f"{name}.parquet"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(path)
    except OSError as error:
        raise access_error(error, str(path), "written") from error
    return path


@dataclass(frozen=True)
class _Step:
    """One job of one round, behind a progress bar."""

    context: RunContext
    stage: str
    round: int
    total: int
    """Total units of work, in the units of the job's events."""
    unit: str

    def run(self, function: Callable[[JobT, Emit], ValueT], job: JobT) -> ValueT:
        """Run the job, show its progress, and record its time and peak memory."""
        title = f"Round {self.round}: {self.stage.replace('_', ' ')}"
        with (
            timed(self.context, self.stage, self.round) as noted,
            progress(title, self.total, self.unit) as bar,
        ):
            pace = _Pace(bar)
            log = self.context.log(self.stage)
            finished = run_job(function, job, log=log, on_event=pace.take)
            noted["peak_memory_bytes"] = finished.peak_memory_bytes
            noted |= pace.numbers()
            return finished.value


class _Pace:
    """Units per second, from a job's first event to its last, so that its start does not count."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._first: float | None = None
        self._last = self._count = 0.0

    def take(self, event: dict[str, Any]) -> None:
        """Show and count an event of the job."""
        self._bar.advance(event["advance"], event.get("note", ""))
        self._last = time.monotonic()
        if self._first is None:
            self._first = self._last
        else:
            self._count += event["advance"]

    def numbers(self) -> dict[str, float]:
        """`per_second`; empty if the job sent only one event."""
        if self._first is None or not self._count:
            return {}
        return {"per_second": self._count / max(self._last - self._first, 1e-9)}
