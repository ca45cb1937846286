"""Results of a bench: one cell per method, share of the data and seed, and its test answers."""

from collections.abc import Mapping
from typing import Any, ClassVar

import polars as pl

from data_schemas.light import dy
from data_schemas.table import Table

CELL_STATUSES = ("ok", "failed")


class BenchCells(Table):
    """One row per cell. A failed cell has a row too: `status = failed`, and `error` says why."""

    table_name: ClassVar[str] = "bench_cells"
    version: ClassVar[int] = 3
    changes: ClassVar[Mapping[int, str]] = {
        1: "First version.",
        2: "num_correct_explained is new.",
        3: "compared and num_correct_compared replace it, for any kind of inference.",
    }
    example: ClassVar[Mapping[str, Any]] = {
        "method": "qcrd",
        "share": 0.5,
        "seed": 1,
        "status": "ok",
        "error": None,
        "run_id": "bench-qcrd-1c9e5ab0",
        "settings": '{"loss": {"beta": 0.5}}',
        "num_train": 360,
        "num_steps": 1000,
        "best_round": 1,
        "validation_accuracy": [0.31, 0.44, 0.42],
        "num_test": 200,
        "num_correct": 91,
        "compared": "explain_then_predict",
        "num_correct_compared": 84,
        "active_hinge_share": 0.37,
        "negatives_right_share": 0.12,
        "auc_polarity": 0.81,
        "auc_correct": 0.77,
        "seconds": 312.5,
        "num_teacher_tokens": 51234,
        "num_student_tokens": 20480,
        "peak_memory_bytes": 1610612736,
    }

    method = dy.String(primary_key=True, min_length=1, description="Name of the method.")
    share = dy.Float64(
        primary_key=True, min_exclusive=0, max=1, description="Share of the training questions."
    )
    seed = dy.Int32(primary_key=True, min=0, description="Seed of the student's run.")
    status = dy.Enum(CELL_STATUSES, description="ok: trained and tested; failed: see error.")
    error = dy.String(nullable=True, min_length=1, description="Why the cell failed.")
    run_id = dy.String(nullable=True, description="Run that the numbers come from.")
    settings = dy.String(
        description="JSON of the settings with which the method overrides the base configuration."
    )
    num_train = dy.Int32(nullable=True, min=0, description="Number of training questions.")
    num_steps = dy.Int64(nullable=True, min=0, description="Number of optimiser steps.")
    best_round = dy.Int32(nullable=True, min=0, description="Round chosen by validation.")
    validation_accuracy = dy.List(
        dy.Float64(min=0, max=1),
        nullable=True,
        min_length=1,
        description="Share of right answers on validation after each round, from round 0.",
    )
    num_test = dy.Int32(
        nullable=True, min=1, description="Number of test questions with a gold answer."
    )
    num_correct = dy.Int32(nullable=True, min=0, description="Number of right answers to them.")
    compared = dy.String(
        nullable=True,
        description="Another kind of inference that the same student was tested with: the first of "
        "evaluation.compare.",
    )
    num_correct_compared = dy.Int32(
        nullable=True, min=0, description="Number of right answers by it; null without one."
    )
    active_hinge_share = dy.Float64(
        nullable=True,
        min=0,
        max=1,
        description="Share of questions whose negative is inside the margin, mean over steps; null "
        "if the loss uses no negatives.",
    )
    negatives_right_share = dy.Float64(
        nullable=True,
        min=0,
        max=1,
        description="Share of students' negatives whose answer is right, mean over rounds; null if "
        "the loss uses no negatives.",
    )
    auc_polarity = dy.Float64(
        nullable=True,
        min=0,
        max=1,
        description="How often the last round's discriminator scores a positive above a negative.",
    )
    auc_correct = dy.Float64(
        nullable=True,
        min=0,
        max=1,
        description="How often it scores a rationale with a right answer above one with a wrong.",
    )
    seconds = dy.Float64(
        nullable=True,
        min=0,
        description="Total time of the student's stages.",
        metadata={"unit": "seconds"},
    )
    num_teacher_tokens = dy.Int64(
        nullable=True, min=0, description="Tokens that the teacher sampled for the cell."
    )
    num_student_tokens = dy.Int64(
        nullable=True, min=0, description="Tokens that students sampled as negatives."
    )
    peak_memory_bytes = dy.Int64(
        nullable=True, min=0, description="Highest memory of the training process."
    )

    @classmethod
    def migrate(cls, frame: pl.DataFrame, version: int) -> pl.DataFrame:
        """Version 1 measured one kind of inference, version 2 only one other."""
        if version not in (1, 2):
            return super().migrate(frame, version)
        count = pl.lit(None, pl.Int32) if version == 1 else pl.col("num_correct_explained")
        kind = pl.when(count.is_not_null()).then(pl.lit("explain_then_predict"))
        return frame.with_columns(compared=kind, num_correct_compared=count).select(
            cls.column_names()
        )

    @dy.rule()
    def status_agrees_with_columns(cls) -> pl.Expr:
        """An ok cell has accuracies and no error; a failed cell has an error."""
        measured = ("num_test", "num_correct", "validation_accuracy")
        return (
            pl.when(pl.col("status") == "failed")
            .then(pl.col("error").is_not_null())
            .otherwise(
                pl.all_horizontal(pl.col(name).is_not_null() for name in measured)
                & pl.col("error").is_null()
            )
        )

    @dy.rule()
    def correct_at_most_all(cls) -> pl.Expr:
        """No more right answers than questions."""
        return pl.col("num_correct") <= pl.col("num_test")


class BenchAnswers(Table):
    """One row per test question and ok cell, for paired statistics."""

    table_name: ClassVar[str] = "bench_answers"
    version: ClassVar[int] = 3
    changes: ClassVar[Mapping[int, str]] = {
        1: "First version.",
        2: "is_correct_explained is new.",
        3: "It is is_correct_compared, for any kind of inference.",
    }
    example: ClassVar[Mapping[str, Any]] = {
        "method": "qcrd",
        "share": 0.5,
        "seed": 1,
        "question_id": "test-0042",
        "is_correct": True,
        "is_correct_compared": False,
    }

    method = dy.String(primary_key=True, min_length=1, description="Foreign key: bench_cells.")
    share = dy.Float64(
        primary_key=True, min_exclusive=0, max=1, description="Foreign key: bench_cells."
    )
    seed = dy.Int32(primary_key=True, min=0, description="Foreign key: bench_cells.")
    question_id = dy.String(primary_key=True, min_length=1, description="Foreign key: questions.")
    is_correct = dy.Bool(description="The student's answer equals the gold answer.")
    is_correct_compared = dy.Bool(
        nullable=True,
        description="The same for its answer by the other kind of inference that bench_cells names "
        "(compared); null without one.",
    )

    @classmethod
    def migrate(cls, frame: pl.DataFrame, version: int) -> pl.DataFrame:
        """Version 1 held one kind of inference, version 2 only one other."""
        if version == 1:
            return frame.with_columns(is_correct_compared=pl.lit(None, pl.Boolean))
        if version == 2:
            return frame.rename({"is_correct_explained": "is_correct_compared"})
        return super().migrate(frame, version)
