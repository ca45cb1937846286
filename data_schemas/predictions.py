"""Answers of a student."""

from collections.abc import Mapping
from typing import Any, ClassVar

from data_schemas.light import dy
from data_schemas.table import Table


class Predictions(Table):
    """One row per question: the answer of one checkpoint."""

    table_name: ClassVar[str] = "predictions"
    version: ClassVar[int] = 1
    example: ClassVar[Mapping[str, Any]] = {
        "question_id": "train-0017",
        "round": 3,
        "split": "test",
        "text": "(7 + 4)",
        "answer": "11",
        "gold_answer": "11",
        "is_correct": True,
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
