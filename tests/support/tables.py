"""Small valid tables, from the columns a test cares about."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from data_schemas import Questions, Rationales

_CREATED = datetime(2026, 1, 2, tzinfo=UTC)


def make_questions(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Build table `questions`; each row names at least its question_id."""
    defaults = {
        "split": "train",
        "choices": None,
        "gold_answer": None,
        "gold_target": None,
        "template": None,
    }
    full = [{**defaults, "question": f"Question {row['question_id']}?", **row} for row in rows]
    return Questions.validate(pl.DataFrame(full, schema=Questions.create_empty().schema), cast=True)


def make_rationales(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Build table `rationales`; each row names at least question_id and sample_idx.

    `answer` decides the status: a text is ok, None is no_answer. `failed=True` makes a failed row.
    """
    full = [_rationale(dict(row)) for row in rows]
    return Rationales.validate(
        pl.DataFrame(full, schema=Rationales.create_empty().schema), cast=True
    )


def _rationale(row: dict[str, Any]) -> dict[str, Any]:
    failed = row.pop("failed", False)
    answer = row.get("answer")
    text = None if failed else row.get("text", f"Because. The answer is {answer}.")
    status = "failed" if failed else "no_answer" if answer is None else "ok"
    return {
        "source": "teacher",
        "round": None,
        "model": "teacher-model",
        "model_revision": None,
        "generation": "abc",
        "prompt_hash": None,
        "seed": 1,
        "rationale": text,
        "answer": answer,
        "answer_raw": answer,
        "error": "HTTP 500" if failed else None,
        "finish_reason": None if failed else "stop",
        "num_prompt_tokens": 10,
        "num_tokens": 5,
        "cumulative_logprob": None,
        "created_at": _CREATED,
        "run_id": "run-1",
        **row,
        "text": text,
        "status": status,
    }
