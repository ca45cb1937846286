"""Right answers that people gave to captured questions."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from data_schemas.light import dy
from data_schemas.table import Table


class Feedback(Table):
    """One row per right answer that was sent for a captured question. The latest one counts."""

    table_name: ClassVar[str] = "feedback"
    version: ClassVar[int] = 1
    example: ClassVar[Mapping[str, Any]] = {
        "question_id": "2d16daabb06eec66",
        "created_at": datetime(2026, 11, 29, 17, 5, tzinfo=UTC),
        "gold_answer": "10",
    }

    distinct: ClassVar[frozenset[str]] = frozenset({"question_id"})

    question_id = dy.String(primary_key=True, min_length=1, description="Foreign key: captured.")
    created_at = dy.Datetime(
        primary_key=True,
        time_zone="UTC",
        description="When it was sent.",
        metadata={"unit": "UTC"},
    )
    gold_answer = dy.String(
        min_length=1, description="The right answer in its canonical form, as in questions."
    )
