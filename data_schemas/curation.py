"""What a curator said about single rationales, apart from the rationales themselves."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

import dataframely as dy

from data_schemas.table import Table

MARKS = ("keep", "reject", "none")


class Curation(Table):
    """One row a rationale that was looked at. Runs that begin later follow it."""

    table_name: ClassVar[str] = "curation"
    version: ClassVar[int] = 1
    example: ClassVar[Mapping[str, Any]] = {
        "generation": "6d0c1f2e9ab4",
        "question_id": "train-0017",
        "sample_idx": 2,
        "mark": "reject",
        "comment": "Right by luck: 7 + 5 is not 11.",
        "created_at": datetime(2026, 11, 24, 9, 12, tzinfo=UTC),
    }

    generation = dy.String(primary_key=True, min_length=1, description="As in rationales.")
    question_id = dy.String(primary_key=True, min_length=1, description="Foreign key: questions.")
    sample_idx = dy.Int32(primary_key=True, min=0, description="As in rationales.")
    mark = dy.Enum(
        MARKS,
        description="keep: positive, whatever the vote says; reject: neither votes nor is learnt "
        "from; none: a comment only, or a mark that was taken back.",
    )
    comment = dy.String(nullable=True, description="Why, in the curator's words.")
    created_at = dy.Datetime(
        time_zone="UTC", description="When it was said.", metadata={"unit": "UTC"}
    )
