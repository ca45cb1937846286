"""The page that compares runs: the first with each of the others."""

from collections.abc import Sequence
from typing import Any

import polars as pl
from markupsafe import Markup

from explorer.pages import question_href
from qcrd_core.errors import DataError
from qcrd_core.evaluation import mcnemar_p_value
from qcrd_core.inspect.compare import RunDifference, compare_runs, differing_settings
from qcrd_core.inspect.view import View
from qcrd_core.report.plots import Axis, Line, line_chart
from qcrd_core.report.summary import series
from qcrd_core.store.parts import collect

MOST_RUNS = 8
_SHOWN = 200


def compare_page(views: Sequence[View]) -> dict[str, Any]:
    """Compare the first run with the others.

    Args:
        views: Two to `MOST_RUNS` runs.

    Returns:
        Values of the template.

    Raises:
        DataError: If there are fewer or more, or a part is damaged.
    """
    if not 2 <= len(views) <= MOST_RUNS:
        msg = f"Between 2 and {MOST_RUNS} runs can be compared; got {len(views)}. Tick others."
        raise DataError(msg)
    first, *others = views
    found = [compare_runs(first, other) for other in others]
    settings = differing_settings(views)
    return {
        "views": views,
        "settings": settings,
        "students": [_student(first, None), *map(_student, others, found)],
        "curves": _learning_curves(views),
        **_side_by_side("votes", views, [(_votes(item), "majority") for item in found]),
        **_side_by_side("answers", views, [(item.predictions, "answer") for item in found]),
    }


def _student(view: View, against_first: RunDifference | None) -> dict[str, Any]:
    """A row of the table of students."""
    answers = view.predictions().filter(pl.col("split") == "test")
    newest = answers.filter(pl.col("round") == pl.col("round").max())
    known = collect(newest.select("is_correct").drop_nulls(), view.name)["is_correct"]
    row: dict[str, Any] = {
        "run_id": view.run_id,
        "num_tests": len(known),
        "accuracy": int(known.sum()) / len(known) if len(known) else None,
        "tested": None,
    }
    if against_first is not None and against_first.predictions.height:
        counts = dict(against_first.predictions.group_by("correctness").len().rows())
        fixed, broken = counts.get("fixed", 0), counts.get("broken", 0)
        p_value = mcnemar_p_value(fixed, broken, alternative="two-sided")
        row["tested"] = {"fixed": fixed, "broken": broken, "p_value": p_value}
    return row


def _votes(found: RunDifference) -> pl.DataFrame:
    different = (pl.col("change") != "same") | pl.col("correctness").is_not_null()
    return found.questions.with_columns(
        correctness=pl.when(different).then(pl.coalesce("correctness", "change"))
    )


def _side_by_side(
    name: str, views: Sequence[View], found: Sequence[tuple[pl.DataFrame, str]]
) -> dict[str, Any]:
    """Questions on which any of the others differs from the first: an answer per run."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for number, (frame, column) in enumerate(found, start=1):
        for row in frame.to_dicts():
            cells = rows.setdefault(row["question_id"], [{} for _ in views])
            cells[0] = {"text": row[f"{column}_a"], "is_correct": row["correct_a"]}
            cells[number] = {
                "text": row[f"{column}_b"],
                "is_correct": row["correct_b"],
                "differs": row["correctness"] is not None,
            }
    differing = {key: cells for key, cells in rows.items() if any(c.get("differs") for c in cells)}
    shown = dict(sorted(differing.items())[:_SHOWN])
    asked: dict[str, str] = {}
    for view in views:
        questions = view.questions().filter(pl.col("question_id").is_in(list(shown)))
        texts = collect(questions.select("question_id", "question"), view.name)
        asked = {**dict(texts.rows()), **asked}
    return {
        name: [
            {
                "question": asked.get(key, key),
                "href": question_href(_holder(views, cells), key, {}, None),
                "cells": cells,
            }
            for key, cells in shown.items()
        ],
        f"num_{name}": len(differing),
        f"num_compared_{name}": len(rows),
    }


def _holder(views: Sequence[View], cells: Sequence[dict[str, Any]]) -> View:
    """The last run with an answer to the question, or the first if none has one."""
    answered = [v for v, cell in zip(views, cells, strict=True) if cell.get("text") is not None]
    return answered[-1] if answered else views[0]


def _learning_curves(views: Sequence[View]) -> Markup | None:
    """Validation accuracy of several runs by round, in one drawing."""
    lines = []
    for tone, view in enumerate(views):
        points = series(view.metrics(), "validation", "accuracy")
        if not points.is_empty():
            name = str(view.run_id).rpartition("-")[2]
            lines.append(Line(name, points["round"].to_list(), points["value"].to_list(), tone))
    accuracy = Axis("accuracy on validation", low=0, is_share=True)
    return line_chart(lines, Axis("round"), accuracy) if lines else None
