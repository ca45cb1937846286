"""Curators' marks on single rationales, stored separately from the rationales."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from data_schemas.light import dy
from data_schemas.table import Table

MARKS = ("keep", "reject", "none")


class Curation(Table):
    """One row per rationale that a curator marked. Later runs follow the marks."""

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
        description="keep: positive, whatever the vote says; reject: it neither votes nor is used "
        "in training; none: only a comment, or a mark that was withdrawn.",
    )
    comment = dy.String(nullable=True, description="The curator's reason.")
    created_at = dy.Datetime(
        time_zone="UTC", description="When the mark was set.", metadata={"unit": "UTC"}
    )
