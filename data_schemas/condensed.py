"""Rationales that were too long for a run, and how they were written again."""

from collections.abc import Mapping
from typing import Any, ClassVar

import polars as pl

from data_schemas.light import dy
from data_schemas.table import Table

VERDICTS = (
    "ok", "other_answer", "no_answer", "empty", "too_long", "failed", "not_asked",
)  # fmt: skip


class Condensed(Table):
    """One row per rationale above `teacher.condense.max_tokens` that the run would train on.

    Only an ok row changes what the student learns; otherwise the original stands.
    """

    table_name: ClassVar[str] = "condensed"
    version: ClassVar[int] = 1
    example: ClassVar[Mapping[str, Any]] = {
        "question_id": "train-0017",
        "source": "teacher",
        "sample_idx": 2,
        "polarity": "positive",
        "verdict": "ok",
        "error": None,
        "original": "Ann has 7 plums. Let me see. She gets 4 more, so I add. 7 + 4 = 11.",
        "rationale": "Ann has 7 plums and gets 4. 7 + 4 = 11.",
        "num_tokens_before": 31,
        "num_tokens_after": 22,
        "generation": "1f77c0a95e21",
    }

    question_id = dy.String(primary_key=True, min_length=1, description="Foreign key: questions.")
    source = dy.Enum(("teacher", "imported"), primary_key=True, description="As in rationales.")
    sample_idx = dy.Int32(primary_key=True, min=0, description="As in polarity.")
    polarity = dy.Enum(("positive", "negative"), description="As in polarity.")
    verdict = dy.Enum(
        VERDICTS,
        description="ok: the rewrite has the original's answer and fits; other_answer; no_answer: "
        "none can be parsed, mostly because it was cut; empty: nothing but the answer; too_long; "
        "failed: see error; not_asked: the original has no answer that a rewrite could keep.",
    )
    error = dy.String(nullable=True, description="Why the request failed, in one line.")
    original = dy.String(min_length=1, description="The rationale as it would be taught.")
    rationale = dy.String(
        nullable=True, description="What is taught in its place; null unless the verdict is ok."
    )
    num_tokens_before = dy.Int32(
        min=1, description="Length of the original for the student.", metadata={"unit": "tokens"}
    )
    num_tokens_after = dy.Int32(
        nullable=True,
        min=1,
        description="Length of the rewrite for the student; null without a text.",
        metadata={"unit": "tokens"},
    )
    generation = dy.String(
        description="Generation of the rewrites, below datasets/<name>/condensed; there the row of "
        "a rationale has the question_id `<question_id>#<sample_idx>`."
    )

    distinct: ClassVar[frozenset[str]] = frozenset({"original", "rationale"})

    @dy.rule()
    def only_an_ok_row_has_a_rationale(cls) -> pl.Expr:
        """What is taught stands in ok rows, and in no other."""
        return (pl.col("verdict") == "ok") == pl.col("rationale").is_not_null()
