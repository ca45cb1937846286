"""The content of each page, as plain values for its template."""

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any
from urllib.parse import quote, urlencode

import polars as pl
from markupsafe import Markup, escape

from explorer.data import Explorer
from qcrd_core.data.equations import false_step
from qcrd_core.inspect.find import read_rows
from qcrd_core.inspect.question import QuestionRecord, read_question
from qcrd_core.inspect.view import View
from qcrd_core.report.text import visible
from qcrd_core.store.parts import collect

ROWS_PER_PAGE = 25
FILTERS = {
    "source": ("teacher", "imported", "student"),
    "status": ("ok", "no_answer", "thought_only", "failed"),
    "polarity": ("positive", "negative"),
    "correct": ("right", "wrong", "no gold"),
    "mark": ("keep", "reject", "none"),
}
"""Choices of the filters above the table, by their parameter in the address."""

EXPORTS = ("jsonl", "csv", "parquet")
"""Endings of the files in which the rows of a filter can be downloaded."""

_CORRECT = {"right": "is_correct", "wrong": "NOT is_correct", "no gold": "is_correct IS NULL"}
_ORDERS = {"surest first": ("confidence", True), "least sure first": ("confidence", False)}
_SAME = ("source", "round", "generation", "text", "reasoning", "status", "mark", "comment")
_RESULT = re.compile(r"\s*([-+]?[0-9](?:[0-9.,/]*[0-9])?)")


def rows_page(explorer: Explorer, view: View, query: dict[str, str]) -> dict[str, Any]:
    """One page of the filterable table."""
    where = condition(query)
    keys = explorer.keys(view, where)
    last = max(0, (keys.height - 1) // ROWS_PER_PAGE)
    page = min(max(_number(query.get("page")), 0), last)
    shown = keys.slice(page * ROWS_PER_PAGE, ROWS_PER_PAGE)
    groups = _by_question(read_rows(view, shown).to_dicts())
    place = page * ROWS_PER_PAGE
    for row in chain.from_iterable(groups):
        row["href"] = question_href(view, row["question_id"], query, place)
        place += len(row["samples"])
    filtered = {name: value for name, value in query.items() if name != "page"}
    return {
        "groups": groups,
        "num_rows": keys.height,
        "num_questions": keys["question_id"].n_unique(),
        "first": page * ROWS_PER_PAGE,
        "page": page,
        "last": last,
        "where": where,
        "query": query,
        "filters": FILTERS,
        "exports": {end: page_href(view, f"rows.{end}", filtered) for end in EXPORTS},
        "previous": page_href(view, "rows", {**query, "page": str(page - 1)}) if page else None,
        "next": page_href(view, "rows", {**query, "page": str(page + 1)}) if page < last else None,
    }


def _by_question(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows grouped by their question; samples with the same text are one row.

    Each row gets `samples`, the numbers of its samples, and `is_step_wrong`.
    """
    groups: list[list[dict[str, Any]]] = []
    for row in rows:
        if not groups or groups[-1][0]["question_id"] != row["question_id"]:
            groups.append([])
        same = next((each for each in groups[-1] if _is_same(each, row)), None)
        if same is not None:
            same["samples"].append(row["sample_idx"])
            continue
        added = {"samples": [row["sample_idx"]], "is_step_wrong": _is_step_wrong(row)}
        groups[-1].append({**row, **added})
    return groups


def _is_step_wrong(row: dict[str, Any]) -> bool:
    """Whether a rationale with the right answer writes a false equation."""
    return row["is_correct"] is True and false_step(row["rationale"] or "") is not None


def _is_same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a["text"] is not None and all(a[name] == b[name] for name in _SAME)


def question_page(
    explorer: Explorer, view: View, question_id: str, query: dict[str, str]
) -> dict[str, Any]:
    """Everything about a question, with links to its neighbours in the list it was opened from."""
    record = read_question(view, question_id)
    rows = [_shown_row(record, row) for row in record.rows.to_dicts()]
    sides = {
        "positive": [row for row in rows if row["side"] == "positive"],
        "negative": [row for row in rows if row["side"] == "negative"],
        "other": [row for row in rows if row["side"] == "other"],
    }
    return {
        "record": record,
        "question": record.question,
        "vote": record.vote,
        "sides": sides,
        "predictions": record.predictions.to_dicts(),
        "prompt": _messages(record),
        "query": query,
        "rows_href": page_href(view, "rows", {k: v for k, v in query.items() if k != "at"}),
        **_neighbours(explorer, view, query),
    }


def answers_page(view: View, query: dict[str, str]) -> dict[str, Any]:
    """Answers of the newest student on one split, with the teacher's majority answer."""
    split = query.get("split", "test")
    newest = newest_answers(view, split)
    if query.get("correct") in ("right", "wrong"):
        newest = newest.filter(pl.col("is_correct") == (query["correct"] == "right"))
    asked = view.questions().select("question_id", "question")
    majority = view.votes().select("question_id", "majority_answer", "agreement")
    joined = newest.join(asked, on="question_id", how="left")
    joined = joined.join(majority, on="question_id", how="left")
    by, descending = _ORDERS.get(query.get("order", ""), ("question_id", False))
    order = [by, "question_id"] if by != "question_id" else [by]
    directions = [descending, False][: len(order)]
    frame = collect(joined, view.name).sort(order, descending=directions, nulls_last=True)
    page = min(max(_number(query.get("page")), 0), max(0, (frame.height - 1) // ROWS_PER_PAGE))
    last = max(0, (frame.height - 1) // ROWS_PER_PAGE)
    rows = frame.slice(page * ROWS_PER_PAGE, ROWS_PER_PAGE).to_dicts()
    for row in rows:
        row["href"] = question_href(view, row["question_id"], {}, None)
    return {
        "rows": rows,
        "num_rows": frame.height,
        "round": frame["round"][0] if frame.height else None,
        "has_majority": frame["majority_answer"].count() > 0,
        "has_confidence": frame["confidence"].count() > 0,
        "orders": tuple(_ORDERS),
        "split": split,
        "query": query,
        "page": page,
        "last": last,
        "previous": page_href(view, "answers", {**query, "page": str(page - 1)}) if page else None,
        "next": page_href(view, "answers", {**query, "page": str(page + 1)})
        if page < last
        else None,
    }


def newest_answers(view: View, split: str) -> pl.LazyFrame:
    """Table `predictions` of the newest round that answered a split."""
    answers = view.predictions().filter(pl.col("split") == split)
    return answers.filter(pl.col("round") == pl.col("round").max())


def condition(query: dict[str, str]) -> str | None:
    """The SQL condition for the parameters of an address; None for all rows."""
    parts = []
    for name in ("source", "status", "polarity"):
        if query.get(name) in FILTERS[name]:
            parts.append(f"{name} = '{query[name]}'")
    if query.get("mark") in FILTERS["mark"]:
        parts.append(f"mark = '{query['mark']}'")
    if query.get("correct") in _CORRECT:
        parts.append(_CORRECT[query["correct"]])
    if query.get("text"):
        quoted = query["text"].replace("'", "''")
        parts.append(f"strpos(lower(text), lower('{quoted}')) > 0")
    if query.get("where", "").strip():
        parts.append(f"({query['where'].strip()})")
    return " AND ".join(parts) or None


def question_href(view: View, question_id: str, query: dict[str, str], at: int | None) -> str:
    """Address of a question. `at` is its position in the list that `query` filters."""
    kept = {name: value for name, value in query.items() if name != "page" and value}
    if at is not None:
        kept["at"] = str(at)
    return page_href(view, f"question/{quote(question_id, safe='')}", kept)


def highlighted(text: str, answer: str | None) -> Markup:
    """Escape a text; mark the last place of its answer, and the result of its first false step."""
    text = text.strip()
    spans = []
    step = false_step(text)
    result = None if step is None else _RESULT.match(text, step)
    if result is not None:
        spans.append((*result.span(1), "false"))
    place = text.rfind(answer) if answer else -1
    if answer and place >= 0:
        spans.append((place, place + len(answer), "answer"))
    shown, end = Markup(""), 0
    for low, high, kind in sorted(spans):
        if low < end:
            continue  # the answer is the false result itself
        between, marked = visible(text[end:low]), visible(text[low:high])
        shown += Markup('{}<mark class="{}">{}</mark>').format(between, kind, marked)
        end = high
    return shown + escape(visible(text[end:]))


def _neighbours(explorer: Explorer, view: View, query: dict[str, str]) -> dict[str, str | None]:
    if "at" not in query:
        return {"previous": None, "next": None}
    ids = explorer.keys(view, condition(query))["question_id"]
    at = min(max(_number(query["at"]), 0), max(len(ids) - 1, 0))
    if not len(ids):
        return {"previous": None, "next": None}
    here = ids[at]
    before = ids.slice(0, at).filter(ids.slice(0, at) != here)
    later = (ids.slice(at) != here).arg_true()
    found = {"previous": len(before) - 1 if len(before) else None, "next": None}
    if len(later):
        found["next"] = at + int(later[0])
    return {
        name: None if place is None else question_href(view, ids[place], query, place)
        for name, place in found.items()
    }


def _shown_row(record: QuestionRecord, row: dict[str, Any]) -> dict[str, Any]:
    same = (pl.col("source").cast(pl.String) == row["source"]) & (
        pl.col("sample_idx") == row["sample_idx"]
    )
    if row["round"] is not None:
        same &= pl.col("round") == row["round"]
    scores = record.scores.filter(same).to_dicts()
    side = scores[-1]["polarity"] if scores else None
    if side is None and row["in_majority"] is not None and row["status"] != "failed":
        side = "positive" if row["in_majority"] else "negative"
    return {
        **row,
        "side": side or "other",
        "scores": scores,
        "is_step_wrong": _is_step_wrong(row),
        "thought": visible(row["reasoning"] or ""),
        "body": highlighted(row["text"] or row["error"] or "", row["answer_raw"]),
    }


def _messages(record: QuestionRecord) -> list[dict[str, str]]:
    if isinstance(record.prompt, str):
        return [{"role": "text", "content": record.prompt}]
    return record.prompt or []


def page_href(view: View, page: str, query: dict[str, str]) -> str:
    """Address of a page of a run."""
    kept = {name: value for name, value in query.items() if value}
    return f"/runs/{quote(str(view.run_id), safe='')}/{page}" + (
        f"?{urlencode(kept)}" if kept else ""
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() and len(text) < 12 else 0
