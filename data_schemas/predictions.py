"""Answers of a student."""

from collections.abc import Mapping
from typing import Any, ClassVar

import polars as pl

from data_schemas.light import dy
from data_schemas.table import Table


class Predictions(Table):
    """One row per question: the answer of one checkpoint."""

    table_name: ClassVar[str] = "predictions"
    version: ClassVar[int] = 2
    changes: ClassVar[Mapping[int, str]] = {
        1: "First version.",
        2: "raw_confidence and confidence: how sure the student is.",
    }
    example: ClassVar[Mapping[str, Any]] = {
        "question_id": "train-0017",
        "round": 3,
        "split": "test",
        "text": "(7 + 4)",
        "answer": "11",
        "gold_answer": "11",
        "is_correct": True,
        "raw_confidence": 0.98,
        "confidence": 0.91,
    }

    question_id = dy.String(primary_key=True, min_length=1, description="Foreign key: questions.")
    round = dy.Int32(min=0, description="Round whose checkpoint answered.")
    split = dy.Enum(("train", "validation", "test"), description="Split of the question.")
    text = dy.String(description="What the student wrote: a label or a rationale.")
    answer = dy.String(nullable=True, description="Canonical answer; null if none can be parsed.")
    gold_answer = dy.String(nullable=True, description="Canonical gold answer.")
    is_correct = dy.Bool(
        nullable=True, description="Whether answer equals gold_answer; null without a gold answer."
    )
    raw_confidence = dy.Float64(
        nullable=True,
        min=0,
        max=1,
        description="The student's own probability of its text, or with inference vote_k the share "
        "of its rationales that agree; null if the label replaces rationales without an answer.",
    )
    confidence = dy.Float64(
        nullable=True,
        min=0,
        max=1,
        description="Probability that the answer is right, calibrated on the validation answers; 0 "
        "without an answer; null if it could not be calibrated.",
    )

    @classmethod
    def migrate(cls, frame: pl.DataFrame, version: int) -> pl.DataFrame:
        """Version 1 recorded no confidence."""
        if version != 1:
            return super().migrate(frame, version)
        unknown = pl.lit(None, pl.Float64)
        return frame.with_columns(raw_confidence=unknown, confidence=unknown)
