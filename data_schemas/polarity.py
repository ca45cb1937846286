"""Which of the teacher's rationales are positive, and which are negative."""

from collections.abc import Mapping
from typing import Any, ClassVar

from data_schemas.light import dy
from data_schemas.table import Table


class Polarity(Table):
    """One row per completed rationale that was voted on. Polarity is decided once, at the vote."""

    table_name: ClassVar[str] = "polarity"
    version: ClassVar[int] = 1
    example: ClassVar[Mapping[str, Any]] = {
        "question_id": "train-0017",
        "source": "teacher",
        "sample_idx": 2,
        "polarity": "positive",
        "is_correct": True,
    }

    question_id = dy.String(primary_key=True, min_length=1, description="Foreign key: questions.")
    source = dy.Enum(("teacher", "imported"), primary_key=True, description="As in rationales.")
    sample_idx = dy.Int32(
        primary_key=True,
        min=0,
        description="As in rationales; samples of a second teacher continue the first one's.",
    )
    polarity = dy.Enum(
        ("positive", "negative", "undecided"),
        description="positive: the student learns to write it; negative: it learns to avoid it; "
        "undecided: the vote abstained, or there is no gold answer to compare with.",
    )
    is_correct = dy.Bool(
        nullable=True, description="Whether the answer equals the gold answer; null without one."
    )
