"""Everything about one question, over all rounds and runs."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from qcrd_core.data.prompts import render_messages, render_text
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.errors import DataError
from qcrd_core.inspect.view import View
from qcrd_core.store.parts import collect
from qcrd_core.teacher.generation import read_identity
from qcrd_core.teacher.plan import prompt_hashes
from qcrd_core.teacher.rendering import with_system_prompt


@dataclass(frozen=True, eq=False)
class QuestionRecord:
    """Everything about one question."""

    question: dict[str, Any]
    """Row of table `questions`."""
    vote: dict[str, Any] | None
    """Row of table `votes`."""
    rows: pl.DataFrame
    """Its rationales: columns ROW_COLUMNS, and has_other_text if another text was asked."""
    scores: pl.DataFrame
    """Rows of table `scores`, all rounds."""
    predictions: pl.DataFrame
    """Rows of table `predictions`, all rounds."""
    prompt: str | list[dict[str, str]] | None
    """The teacher's prompt as rendered; None without a run, or for imported rationales."""
    generations: dict[str, dict[str, Any]]
    """generation.json by fingerprint."""
    is_composed: bool
    """Whether the majority answer is made of parts of tied answers (`voting.tie=parts`)."""


def read_question(view: View, question_id: str) -> QuestionRecord:
    """Collect everything about a question.

    Args:
        view: The store or run.
        question_id: Id of the question.

    Returns:
        The record.

    Raises:
        DataError: If there is no such question, or a part is damaged.
    """
    is_it = pl.col("question_id") == question_id
    questions = collect(view.questions().filter(is_it), view.name)
    if questions.is_empty():
        msg = f"{view.name} has no question {question_id!r}. Find ids with `qcrd inspect --where`."
        raise DataError(msg)
    rows = collect(view.rows(question_ids=[question_id]), view.name)
    asked = prompt_hashes(questions)[0]
    other = (pl.col("prompt_hash") != asked).fill_null(value=False)
    order = [pl.col("source") == "student", *("round", "generation", "sample_idx")]
    rows = rows.with_columns(has_other_text=other).sort(order)
    votes = collect(view.votes().filter(is_it), view.name)
    scores = collect(view.scores().filter(is_it), view.name)
    predictions = collect(view.predictions().filter(is_it), view.name)
    vote = votes.row(0, named=True) if votes.height else None
    return QuestionRecord(
        question=questions.row(0, named=True),
        vote=vote,
        rows=rows,
        scores=scores.sort("source", "sample_idx", "round"),
        predictions=predictions.sort("round"),
        prompt=_prompt(view, questions.row(0, named=True)),
        generations=_generations(view),
        is_composed=vote is not None and _is_composed(view, vote),
    )


def _is_composed(view: View, vote: dict[str, Any]) -> bool:
    is_by_parts = view.settings.get("voting", {}).get("tie") == "parts"
    return is_by_parts and vote["is_tie"] and vote["majority_answer"] is not None


def _prompt(view: View, question: dict[str, Any]) -> str | list[dict[str, str]] | None:
    if view.run_id is None or view.environment is None or view.environment.first_prompt is None:
        return None
    spec = view.store.read_json(view.paths.dataset, DatasetSpec)
    teacher = view.settings["teacher"]
    if teacher.get("api", "chat") != "chat":
        return render_text(spec, question["question"])
    messages = render_messages(
        spec,
        question["question"],
        question["messages"],
        is_structured=teacher.get("structured_output", False),
    )
    return with_system_prompt(messages, teacher.get("system_prompt"))


def _generations(view: View) -> dict[str, dict[str, Any]]:
    found = {}
    for generation in view.generations:
        path = f"{generation.folder}/generation.json"
        if view.store.exists(path):
            found[generation.fingerprint] = read_identity(view.store, generation.folder)
    return found
