"""Small valid tables, from the columns a test cares about."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from data_schemas import BenchAnswers, BenchCells, Questions, Rationales

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


def make_cells(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Build table `bench_cells`; each row names method and seed, a failed one its error."""
    full = [_cell(row) for row in rows]
    return BenchCells.validate(
        pl.DataFrame(full, schema=BenchCells.create_empty().schema), cast=True
    )


def make_answers(rows: Mapping[tuple[str, float, int], str]) -> pl.DataFrame:
    """Build table `bench_answers` from (method, share, seed) -> a `1` or `0` a question."""
    full = [
        (*key, f"q{index:04d}", mark == "1", None)
        for key, marks in rows.items()
        for index, mark in enumerate(marks)
    ]
    schema = BenchAnswers.create_empty().schema
    return BenchAnswers.validate(pl.DataFrame(full, schema=schema, orient="row"), cast=True)


def _cell(row: dict[str, Any]) -> dict[str, Any]:
    empty = dict.fromkeys(BenchCells.column_names())
    common = {"share": 1.0, "settings": "{}", "status": "failed" if "error" in row else "ok"}
    measured = {"num_test": 10, "num_correct": 5, "validation_accuracy": [0.5]}
    return {**empty, **common, **({} if "error" in row else measured), **row}
