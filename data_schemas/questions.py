"""Questions of one data set, all splits."""

from collections.abc import Mapping
from typing import Any, ClassVar

import polars as pl

from data_schemas.light import dy
from data_schemas.table import Table

SPLITS = ("train", "validation", "test")


class Questions(Table):
    """One row per question. Written when a data set is loaded, and again when it changes."""

    table_name: ClassVar[str] = "questions"
    version: ClassVar[int] = 2
    changes: ClassVar[Mapping[int, str]] = {
        1: "First version.",
        2: "Added `messages`.",
    }
    example: ClassVar[Mapping[str, Any]] = {
        "question_id": "train-0017",
        "split": "train",
        "question": "Ann has 7 plums and gets 4 more. How many plums does Ann have?",
        "choices": None,
        "gold_answer": "11",
        "gold_target": "(7 + 4)",
        "template": "get_more",
        "messages": None,
    }

    distinct: ClassVar[frozenset[str]] = frozenset({"question", "gold_target", "messages"})

    question_id = dy.String(
        primary_key=True,
        min_length=1,
        description="Id from the data set, or a hash of the question's content.",
    )
    split = dy.Enum(SPLITS, description="Part of the data set that the question belongs to.")
    question = dy.String(min_length=1, description="Text of the question as the models read it.")
    choices = dy.List(
        dy.String(), nullable=True, description="Answer choices in order, for choice questions."
    )
    gold_answer = dy.String(
        nullable=True, description="Canonical gold answer; null without a label."
    )
    gold_target = dy.String(
        nullable=True,
        description="Text that the student learns as the label, if it is not the gold answer "
        "itself (SVAMP: the equation).",
    )
    template = dy.String(
        nullable=True,
        description="Name of a slice for reports, for example the generator's template.",
    )
    messages = dy.String(
        nullable=True,
        description="JSON list of the turns before the answer (role, content) if the data set "
        "holds conversations; `question` is the same as one text.",
    )

    @classmethod
    def migrate(cls, frame: pl.DataFrame, version: int) -> pl.DataFrame:
        """Version 1 had no conversations, so `messages` is null."""
        if version != 1:
            return super().migrate(frame, version)
        return frame.with_columns(messages=pl.lit(None, pl.String))
