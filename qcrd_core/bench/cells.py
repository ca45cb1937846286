"""Turn finished runs into rows of a bench's two tables."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from data_schemas import BenchAnswers, BenchCells, Metrics, Predictions, Rationales
from qcrd_core.bench.config import BenchConfig, Cell
from qcrd_core.run.context import RunContext
from qcrd_core.run.records import Result
from qcrd_core.stages.plan import plan_run
from qcrd_core.store.store import Store
from qcrd_core.vote.rationales import read_rationales

_STAGES = ("sample_negatives", "score_rationales", "train", "answer_validation", "answer_test")
"""Stages of a student: the cost of a method without the teacher's samples."""


@dataclass(frozen=True, eq=False)
class CellResult:
    """The result of a cell."""

    row: dict[str, Any]
    """Row of table `bench_cells`."""
    answers: pl.DataFrame
    """Rows of table `bench_answers`; empty if the cell failed."""


def bench_folder(bench: BenchConfig) -> str:
    """Folder of a bench's tables, relative to the store's root."""
    return f"bench/{bench.name}"


def stored(store: Store, folder: str) -> dict[str, CellResult]:
    """Read the cells that a bench's tables already hold.

    A run's name hashes its settings, its questions and its teacher, so a row stands for its run
    even if the run itself was deleted or was made elsewhere.

    Args:
        store: The store that holds the tables.
        folder: Their folder, which may be absent.

    Returns:
        Results of the successful cells, by run id.

    Raises:
        DataError: If a table is damaged.
    """
    if not store.exists(f"{folder}/cells.parquet"):
        return {}
    cells = store.read_table(f"{folder}/cells.parquet", BenchCells)
    answers = store.read_table(f"{folder}/answers.parquet", BenchAnswers)
    good = cells.filter(pl.col("status") == "ok")
    return {
        row["run_id"]: CellResult(row, answers.join(key, on=key.columns, how="semi"))
        for row, key in zip(
            good.iter_rows(named=True),
            good.select("method", "share", "seed").iter_slices(1),
            strict=True,
        )
    }


def find(bench: BenchConfig, cell: Cell, known: Mapping[str, CellResult]) -> CellResult | None:
    """Find a cell's result in the tables or in its complete run.

    Args:
        bench: The bench.
        cell: The cell.
        known: From `stored`.

    Returns:
        The result; None if the cell must be run.

    Raises:
        DataError: If a table of the run is damaged.
    """
    plan = plan_run(cell.config)
    if plan.run_id in known:
        return known[plan.run_id]
    return measured(bench, cell, plan.context) if plan.is_complete else None


def failed(bench: BenchConfig, cell: Cell, error: str) -> CellResult:
    """The result of a cell that failed, with its error."""
    row = {**_key(bench, cell), "status": "failed", "error": error}
    return CellResult(row, BenchAnswers.create_empty())


def measured(bench: BenchConfig, cell: Cell, context: RunContext) -> CellResult:
    """Read a cell's result from its complete run.

    Args:
        bench: The bench.
        cell: The cell.
        context: The cell's run.

    Returns:
        The result.

    Raises:
        DataError: If a table of the run is damaged.
    """
    store, paths, config = context.store, context.paths, context.config
    metrics = store.read_table(paths.metrics, Metrics)
    best = store.read_json(paths.result, Result).round
    predictions = store.read_table(paths.predictions("test", best), Predictions)
    known = _with_compared(context, best, predictions.drop_nulls("is_correct"))
    compared = known["is_correct_compared"]
    validation = _series(metrics, "validation", "accuracy")
    steps = metrics.filter(pl.col("stage") == "train")["global_step"].max()
    has_negatives = config.loss.beta > 0 and config.loss.alpha_contrastive > 0
    row = {
        **_key(bench, cell),
        "status": "ok",
        "run_id": paths.run_id,
        "num_train": context.read_questions("train").height,
        "num_steps": steps,
        "best_round": best,
        "validation_accuracy": validation.to_list(),
        "num_test": known.height,
        "num_correct": int(known["is_correct"].sum()),
        "compared": next(iter(config.evaluation.compare), None),
        "num_correct_compared": None if compared.has_nulls() else int(compared.sum()),
        "active_hinge_share": _mean(metrics, "train", "active_hinge_share", has_negatives),
        "negatives_right_share": _mean(metrics, "negatives", "correct_share", has_negatives),
        "auc_polarity": _last(metrics, "discriminator", "auc_polarity"),
        "auc_correct": _last(metrics, "discriminator", "auc_correct"),
        "seconds": _student_seconds(metrics),
        "num_teacher_tokens": _tokens(read_rationales(context)),
        "num_student_tokens": _student_tokens(context),
        "peak_memory_bytes": _peak_memory(metrics),
    }
    answers = known.select(
        *(pl.lit(row[name]).alias(name) for name in ("method", "share", "seed")),
        "question_id",
        "is_correct",
        "is_correct_compared",
    )
    return CellResult(row, BenchAnswers.validate(answers, cast=True))


def _with_compared(context: RunContext, best: int, known: pl.DataFrame) -> pl.DataFrame:
    """Add `is_correct_compared`, null if the run was tested with one kind of inference."""
    if not context.config.evaluation.compare:
        return known.with_columns(is_correct_compared=pl.lit(None, pl.Boolean))
    path = context.paths.predictions(f"test-{context.config.evaluation.compare[0]}", best)
    compared = context.store.read_table(path, Predictions).select(
        "question_id", is_correct_compared="is_correct"
    )
    return known.join(compared, on="question_id", how="left", maintain_order="left")


def _key(bench: BenchConfig, cell: Cell) -> dict[str, Any]:
    blank: dict[str, Any] = dict.fromkeys(BenchCells.column_names())
    settings = json.dumps(bench.settings(cell.method), sort_keys=True)
    key = {"method": cell.method, "share": cell.share, "seed": cell.seed, "settings": settings}
    return {**blank, **key}


def _series(metrics: pl.DataFrame, stage: str, name: str) -> pl.Series:
    rows = metrics.filter(pl.col("stage") == stage, pl.col("name") == name)
    return rows.sort("round", "global_step")["value"].drop_nulls()


def _mean(metrics: pl.DataFrame, stage: str, name: str, is_asked: bool) -> float | None:
    values = _series(metrics, stage, name)
    return float(values.sum()) / values.len() if is_asked and values.len() else None


def _last(metrics: pl.DataFrame, stage: str, name: str) -> float | None:
    values = _series(metrics, stage, name)
    return float(values[-1]) if values.len() else None


def _student_seconds(metrics: pl.DataFrame) -> float:
    names = [f"{stage}_seconds" for stage in _STAGES]
    rows = metrics.filter(pl.col("stage") == "timing", pl.col("name").is_in(names))
    return float(rows["value"].sum())


def _peak_memory(metrics: pl.DataFrame) -> int | None:
    rows = metrics.filter(
        pl.col("stage") == "timing", pl.col("name").str.ends_with("peak_memory_bytes")
    )
    return int(rows["value"].to_numpy().max()) if rows.height else None


def _tokens(rationales: pl.DataFrame) -> int | None:
    known = rationales["num_tokens"].drop_nulls()
    return int(known.cast(pl.Int64).sum()) if known.len() else None


def _student_tokens(context: RunContext) -> int:
    rounds = range(context.config.training.num_rounds)
    tables = [
        context.store.read_table(context.paths.negatives(round_), Rationales) for round_ in rounds
    ]
    return sum(_tokens(table) or 0 for table in tables)
