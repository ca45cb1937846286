"""The discriminator's quality score of each rationale, by round."""

from collections.abc import Mapping
from typing import Any, ClassVar

import polars as pl

from data_schemas.light import dy
from data_schemas.table import Table

POLARITIES = ("positive", "negative")


class Scores(Table):
    """One row per rationale and round, as read by the loss of that round."""

    table_name: ClassVar[str] = "scores"
    version: ClassVar[int] = 3
    changes: ClassVar[Mapping[int, str]] = {
        1: "First version.",
        2: "quality_score may be null: if no loss uses it, no discriminator is trained.",
        3: "rationale_weight may exceed 1: the weights of a polarity are scaled to a mean of 1.",
    }
    example: ClassVar[Mapping[str, Any]] = {
        "round": 3,
        "question_id": "train-0017",
        "source": "teacher",
        "sample_idx": 2,
        "polarity": "positive",
        "rationale": "Ann has 7 plums and gets 4. 7 + 4 = 11.",
        "quality_score": 0.83,
        "rationale_weight": 0.83,
    }

    distinct: ClassVar[frozenset[str]] = frozenset(
        {"rationale", "quality_score", "rationale_weight"}
    )

    round = dy.Int32(primary_key=True, min=0, description="Round that trained on this row.")
    question_id = dy.String(primary_key=True, min_length=1, description="Foreign key: questions.")
    source = dy.Enum(
        ("teacher", "student", "imported"), primary_key=True, description="As in rationales."
    )
    sample_idx = dy.Int32(primary_key=True, min=0, description="As in polarity.")
    polarity = dy.Enum(
        POLARITIES,
        description="positive: the student learns to write it; negative: it learns to avoid it.",
    )
    rationale = dy.String(min_length=1, description="The text that the student is trained on.")
    quality_score = dy.Float64(
        nullable=True,
        min=0,
        max=1,
        description="s = D(x, r), equation 1 of the paper; null if no loss uses it.",
    )
    rationale_weight = dy.Float64(
        min=0,
        description="Weight in the loss if the rationale is chosen: s for a positive, 1 - s for a "
        "negative, scaled to a mean of 1 unless discriminator.fit is paper; 1 without s.",
    )

    @classmethod
    def migrate(cls, frame: pl.DataFrame, version: int) -> pl.DataFrame:
        """Version 1 had a quality_score in every row, and until version 2 no weight exceeded 1."""
        return frame if version in {1, 2} else super().migrate(frame, version)
