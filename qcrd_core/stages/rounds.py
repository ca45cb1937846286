"""The rounds: tokenizers, negatives, scores, training, validation, and the end of a run.

Each function does one step of one round through a job in a process of its own, and nothing if the
store has the step's result already.
"""

import shutil
import time
from typing import Any

import polars as pl

from data_schemas import Metrics
from qcrd_core.config.models import ScratchEncoder
from qcrd_core.discriminator.pairs import BATCH_SIZE
from qcrd_core.discriminator.scores import write_scores
from qcrd_core.errors import TrainingError
from qcrd_core.evaluation import best_round
from qcrd_core.progress import Bar, progress
from qcrd_core.report import write_report
from qcrd_core.run.context import RunContext
from qcrd_core.runtime.processes import Emit, run_job
from qcrd_core.stages.sampling import read_rationales
from qcrd_core.stages.timing import timed
from qcrd_core.stages.voting import candidates, training_labels


def check_student(context: RunContext) -> dict[str, Any]:
    """Load the student and measure the questions, before the teacher is sampled.

    Raises:
        ConfigError: If a model or tokenizer cannot be loaded.
        DataError: If a question is too long for the student.
    """
    if context.store.is_published(context.paths.tokenizer):
        return {}
    with timed(context, "check_student"):
        return _run(context, "qcrd_core.student.prepare:check")


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
    path = _hand_over(context, "texts", texts.to_frame())
    with timed(context, "make_tokenizers"):
        return _run(context, "qcrd_core.student.prepare:main", texts=path)


def sample_negatives(context: RunContext, round_: int) -> dict[str, Any]:
    """Let the student of round t - j write the negatives of round t.

    Args:
        context: The run.
        round_: The round that trains on them.

    Returns:
        Counts; empty when the round has no student negatives.
    """
    checkpoint = negatives_checkpoint(context, round_)
    done = context.store.exists(context.paths.metrics_part("negatives", round_))
    if checkpoint is None or done:
        return {}
    return _show(
        context,
        "sample_negatives",
        context.read_questions("train").height,
        "questions",
        "qcrd_core.student.negatives:main",
        round=round_,
        checkpoint=checkpoint,
    )


def negatives_checkpoint(context: RunContext, round_: int) -> int | None:
    """Round whose student writes the negatives of `round_`; None when there are none."""
    negatives = context.config.negatives
    if not negatives.student or round_ == 0:
        return None
    # Before round j there is no student of j rounds before, and an untrained one writes noise.
    return round_ - negatives.lag if round_ >= negatives.lag else None


def rounds_waiting_for(context: RunContext, checkpoint: int) -> list[int]:
    """Rounds whose negatives the student of a round is to write and has not written."""
    return [
        round_
        for round_ in range(checkpoint + 1, context.config.training.num_rounds)
        if negatives_checkpoint(context, round_) == checkpoint
        and not context.store.exists(context.paths.metrics_part("negatives", round_))
    ]


def score_rationales(context: RunContext, round_: int) -> dict[str, Any]:
    """Teach the discriminator and let it score every candidate rationale of the round.

    Where no loss asks for a score there is no discriminator, and the scores are null.
    """
    if context.store.exists(context.paths.scores(round_)):
        return {}
    rows, counts = candidates(context, round_)
    context.write_metrics("data", round_, counts, part="candidates")
    if not context.config.loss.reads_quality:
        blank = pl.lit(None, pl.Float64).alias("quality_score")
        write_scores(context, round_, rows.with_columns(blank))
        return {"num_scored": 0}
    path = _hand_over(context, "candidates", rows)
    config = context.config.discriminator
    num_steps = config.pretrain_steps if round_ == 0 else config.update_steps
    return _show(
        context,
        "score_rationales",
        num_steps * BATCH_SIZE + rows.height,
        "texts",
        "qcrd_core.discriminator.score:main",
        round=round_,
        candidates=path,
        tokenizer=_discriminator_tokenizer(context),
    )


def train_round(context: RunContext, round_: int) -> dict[str, Any]:
    """Train the student for one round.

    Raises:
        TrainingError: If the loss is no finite number, or training was stopped from outside; its
            checkpoint is kept.
    """
    if context.store.exists(context.paths.metrics_part("train", round_)):
        return {}
    labels = training_labels(context)
    result = _show(
        context,
        "train",
        context.config.training.steps_in_round(labels.height),
        "steps",
        "qcrd_core.training.train:main",
        round=round_,
        labels=_hand_over(context, "labels", labels),
    )
    if result["interrupted"]:
        msg = (
            f"Training must end with its last step; it was stopped at step {result['global_step']} "
            f"(round {round_}). Its checkpoint is kept: run the same command again."
        )
        raise TrainingError(msg)
    return result


def evaluate(context: RunContext, split: str, round_: int) -> dict[str, Any]:
    """Let the student of a round answer a split."""
    if context.store.exists(context.paths.metrics_part(split, round_)):
        return {}
    return _show(
        context,
        f"answer_{split}",
        context.read_questions(split).height * context.config.evaluation.texts_per_question,
        "answers",
        "qcrd_core.student.predict:main",
        round=round_,
        split=split,
    )


def prune(context: RunContext, round_: int) -> list[str]:
    """Delete checkpoints that no later round and no result needs.

    Students of the last j rounds stay, for they write later rounds' negatives; the best one stays;
    the newest discriminator stays.

    Args:
        context: The run.
        round_: The newest validated round.

    Returns:
        Folders that were deleted.
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
    """Test the best student once, publish it, write result and report, drop the checkpoints.

    Returns:
        The run's result: `round`, `validation_accuracy`, and `test` as `predict` measured it.

    Raises:
        DataError: If no round was validated.
    """
    store, paths = context.store, context.paths
    metrics = store.read_table(paths.metrics, Metrics)
    best = best_round(metrics)
    if not store.is_published(paths.best_student):
        evaluate(context, "test", best)
        target = store.local(paths.best_student)
        copy = target.with_name(f"_tmp-{target.name}")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(store.fetch_folder(paths.student(best)), copy)
        store.publish_folder(copy, paths.best_student)
    result = _result(store.read_table(paths.metrics, Metrics), best)
    write_report(store, paths.run_id)
    store.delete(f"{paths.root}/checkpoints")
    shutil.rmtree(context.scratch / "handed_over", ignore_errors=True)
    # Last: its presence says that the run is complete.
    store.write_json(paths.result, result)
    return result


def _result(metrics: pl.DataFrame, best: int) -> dict[str, Any]:
    def values(stage: str) -> dict[str, float]:
        rows = metrics.filter(pl.col("stage") == stage, pl.col("round") == best)
        return dict(rows.select("name", "value").iter_rows())

    return {
        "round": best,
        "validation_accuracy": values("validation")["accuracy"],
        "test": values("test"),
    }


def _newest_discriminator(context: RunContext, round_: int) -> int:
    for candidate in range(round_, -1, -1):
        if context.store.is_published(context.paths.discriminator(candidate)):
            return candidate
    return 0


def _discriminator_tokenizer(context: RunContext) -> str:
    is_own = not isinstance(context.config.discriminator_model, ScratchEncoder)
    paths = context.paths
    rel = paths.discriminator_tokenizer if is_own else paths.tokenizer
    return str(context.store.fetch_folder(rel))


def _hand_over(context: RunContext, name: str, frame: pl.DataFrame) -> str:
    """Write what a job reads to the run's scratch folder."""
    path = context.scratch / "handed_over" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)
    return str(path)


def _show(
    context: RunContext, stage: str, total: int, unit: str, target: str, **payload: Any
) -> dict[str, Any]:
    """Run a job of one round behind a bar and note how long it took."""
    round_ = int(payload["round"])
    with (
        timed(context, stage, round_) as noted,
        progress(f"Round {round_}: {stage.replace('_', ' ')}", total, unit) as bar,
    ):
        pace = _Pace(bar)
        result = _run(context, target, on_event=pace.take, **payload)
        noted["peak_memory_bytes"] = result["peak_memory_bytes"]
        noted |= pace.numbers()
        return result


class _Pace:
    """Units a second from a job's first report to its last: its start is not among them."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._first: float | None = None
        self._last = self._count = 0.0

    def take(self, event: dict[str, Any]) -> None:
        """Show and count what a job reports."""
        self._bar.advance(event["advance"], event.get("note", ""))
        self._last = time.monotonic()
        if self._first is None:
            self._first = self._last
        else:
            self._count += event["advance"]

    def numbers(self) -> dict[str, float]:
        """`per_second`; nothing of a job that reported once."""
        if self._first is None or not self._count:
            return {}
        return {"per_second": self._count / max(self._last - self._first, 1e-9)}


def _run(
    context: RunContext, target: str, *, on_event: Emit | None = None, **payload: Any
) -> dict[str, Any]:
    name = target.partition(":")[0].rpartition(".")[2]
    log = context.scratch / f"{name}.log"
    return run_job(target, context.payload(**payload), log=log, on_event=on_event)
