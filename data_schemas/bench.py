"""What a bench measured: one method, share of the data and seed a cell, and its test answers."""

from collections.abc import Mapping
from typing import Any, ClassVar

import dataframely as dy
import polars as pl

from data_schemas.table import Table

CELL_STATUSES = ("ok", "failed")


class BenchCells(Table):
    """One row a cell. A cell that failed is a row too: `status = failed`, `error` says why."""

    table_name: ClassVar[str] = "bench_cells"
    version: ClassVar[int] = 1
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
    status = dy.Enum(CELL_STATUSES, description="ok: trained and tested; failed.")
    error = dy.String(nullable=True, min_length=1, description="Why the cell failed.")
    run_id = dy.String(nullable=True, description="Run that the numbers come from.")
    settings = dy.String(
        description="JSON of what the method sets on top of the base configuration."
    )
    num_train = dy.Int32(nullable=True, min=0, description="Training questions.")
    num_steps = dy.Int64(nullable=True, min=0, description="Optimiser steps.")
    best_round = dy.Int32(nullable=True, min=0, description="Round chosen by validation.")
    validation_accuracy = dy.List(
        dy.Float64(min=0, max=1),
        nullable=True,
        min_length=1,
        description="Share of right answers on validation after each round, from round 0.",
    )
    num_test = dy.Int32(nullable=True, min=1, description="Test questions with a gold answer.")
    num_correct = dy.Int32(nullable=True, min=0, description="Right ones among them.")
    active_hinge_share = dy.Float64(
        nullable=True,
        min=0,
        max=1,
        description="Share of questions whose negative is inside the margin, mean over steps; null "
        "without negatives.",
    )
    negatives_right_share = dy.Float64(
        nullable=True,
        min=0,
        max=1,
        description="Share of the students' samples whose answer is right, mean over rounds; null "
        "where no negative is learnt from.",
    )
    auc_polarity = dy.Float64(
        nullable=True,
        min=0,
        max=1,
        description="How well the discriminator of the last round tells positives from negatives.",
    )
    auc_correct = dy.Float64(
        nullable=True, min=0, max=1, description="Likewise right answers from wrong ones."
    )
    seconds = dy.Float64(
        nullable=True,
        min=0,
        description="Time of all stages of the student.",
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

    @dy.rule()
    def status_agrees_with_columns(cls) -> pl.Expr:
        """An ok cell has its accuracies and no error; a failed one has an error."""
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
    """One row a test question and ok cell: what paired statistics are made of."""

    table_name: ClassVar[str] = "bench_answers"
    version: ClassVar[int] = 1
    example: ClassVar[Mapping[str, Any]] = {
        "method": "qcrd",
        "share": 0.5,
        "seed": 1,
        "question_id": "test-0042",
        "is_correct": True,
    }

    method = dy.String(primary_key=True, min_length=1, description="Foreign key: bench_cells.")
    share = dy.Float64(
        primary_key=True, min_exclusive=0, max=1, description="Foreign key: bench_cells."
    )
    seed = dy.Int32(primary_key=True, min=0, description="Foreign key: bench_cells.")
    question_id = dy.String(primary_key=True, min_length=1, description="Foreign key: questions.")
    is_correct = dy.Bool(description="The student's answer equals the gold answer.")
