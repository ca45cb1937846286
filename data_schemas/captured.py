"""Questions that a served student was asked."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from data_schemas.light import dy
from data_schemas.table import Table

ANSWERED_BY = ("student", "teacher", "student_without_teacher")


class Captured(Table):
    """One row per distinct question that `qcrd serve --capture` answered, with its first answer."""

    table_name: ClassVar[str] = "captured"
    version: ClassVar[int] = 1
    example: ClassVar[Mapping[str, Any]] = {
        "question_id": "2d16daabb06eec66",
        "question": "Ben had 15 apples and gave away 5. How many apples are left?",
        "choices": None,
        "answer": "10",
        "confidence": 0.95,
        "answered_by": "student",
        "student": "invoices/2bccf207",
        "created_at": datetime(2026, 11, 29, 16, 20, tzinfo=UTC),
    }

    distinct: ClassVar[frozenset[str]] = frozenset({"question", "confidence"})

    question_id = dy.String(
        primary_key=True, min_length=1, description="Hash of the question and its choices."
    )
    question = dy.String(min_length=1, description="Text of the question as the student read it.")
    choices = dy.List(dy.String(), nullable=True, description="As in questions.")
    answer = dy.String(nullable=True, description="The answer that was given; null if none was.")
    confidence = dy.Float64(
        nullable=True, min=0, max=1, description="As in predictions; null for a teacher's answer."
    )
    answered_by = dy.Enum(
        ANSWERED_BY,
        description="student_without_teacher: the student was not sure, and the teacher was away "
        "or gave no readable answer.",
    )
    student = dy.String(min_length=1, description="Version, run or folder of the student.")
    created_at = dy.Datetime(
        time_zone="UTC", description="When it was answered.", metadata={"unit": "UTC"}
    )
