"""The content of each page, as plain values for its template."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

import polars as pl
from markupsafe import Markup, escape

from explorer.charts import Bar, bar_chart
from explorer.data import Explorer
from qcrd_core.inspect.compare import compare_runs
from qcrd_core.inspect.find import read_rows
from qcrd_core.inspect.question import QuestionRecord, read_question
from qcrd_core.inspect.summary import Summary
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

_CORRECT = {"right": "is_correct", "wrong": "NOT is_correct", "no gold": "is_correct IS NULL"}
_SHOWN_CHANGES = 200


def run_page(explorer: Explorer, view: View) -> dict[str, Any]:
    """Numbers and plots of a run."""
    summary = explorer.summary(view)
    score_bins = explorer.scores(view)
    return {
        "summary": summary,
        "vote": summary.vote,
        "counts": summary.counts.to_dicts(),
        "lengths": summary.lengths.to_dicts(),
        "failures": summary.failures.head(10).to_dicts(),
        "agreement": _vote_chart(view, summary, "agreement"),
        "margin": _vote_chart(view, summary, "margin"),
        "scores": [_score_chart(view, part) for part in _by_round(score_bins)],
        "slices": explorer.slices(view).to_dicts(),
        "settings": view.settings,
    }


def rows_page(explorer: Explorer, view: View, query: dict[str, str]) -> dict[str, Any]:
    """One page of the filterable table."""
    where = condition(query)
    keys = explorer.keys(view, where)
    last = max(0, (keys.height - 1) // ROWS_PER_PAGE)
    page = min(max(_number(query.get("page")), 0), last)
    shown = keys.slice(page * ROWS_PER_PAGE, ROWS_PER_PAGE)
    rows = read_rows(view, shown).to_dicts()
    first = page * ROWS_PER_PAGE
    for number, row in enumerate(rows):
        row["href"] = question_href(view, row["question_id"], query, first + number)
    return {
        "rows": rows,
        "num_rows": keys.height,
        "num_questions": keys["question_id"].n_unique(),
        "first": first,
        "page": page,
        "last": last,
        "where": where,
        "query": query,
        "filters": FILTERS,
        "previous": _href(view, "rows", {**query, "page": str(page - 1)}) if page else None,
        "next": _href(view, "rows", {**query, "page": str(page + 1)}) if page < last else None,
    }


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
        "rows_href": _href(view, "rows", {k: v for k, v in query.items() if k != "at"}),
        **_neighbours(explorer, view, query),
    }


def answers_page(view: View, query: dict[str, str]) -> dict[str, Any]:
    """Answers of the newest student on one split, with the teacher's majority answer."""
    split = query.get("split", "test")
    newest = view.predictions().filter(pl.col("split") == split)
    newest = newest.filter(pl.col("round") == pl.col("round").max())
    if query.get("correct") in ("right", "wrong"):
        newest = newest.filter(pl.col("is_correct") == (query["correct"] == "right"))
    asked = view.questions().select("question_id", "question")
    majority = view.votes().select("question_id", "majority_answer", "agreement")
    joined = newest.join(asked, on="question_id", how="left")
    joined = joined.join(majority, on="question_id", how="left").sort("question_id")
    frame = collect(joined, view.name)
    page = min(max(_number(query.get("page")), 0), max(0, (frame.height - 1) // ROWS_PER_PAGE))
    last = max(0, (frame.height - 1) // ROWS_PER_PAGE)
    rows = frame.slice(page * ROWS_PER_PAGE, ROWS_PER_PAGE).to_dicts()
    for row in rows:
        row["href"] = question_href(view, row["question_id"], {}, None)
    return {
        "rows": rows,
        "num_rows": frame.height,
        "round": frame["round"][0] if frame.height else None,
        "split": split,
        "query": query,
        "page": page,
        "last": last,
        "previous": _href(view, "answers", {**query, "page": str(page - 1)}) if page else None,
        "next": _href(view, "answers", {**query, "page": str(page + 1)}) if page < last else None,
    }


def compare_page(a: View, b: View) -> dict[str, Any]:
    """The changes from run a to run b."""
    found = compare_runs(a, b)
    changed = found.questions.filter(
        (pl.col("change") != "same") | pl.col("correctness").is_not_null()
    )
    rows = changed.head(_SHOWN_CHANGES).to_dicts()
    for row in rows:
        row["href"] = question_href(
            a if row["change"] == "gone" else b, row["question_id"], {}, None
        )
    answered = found.predictions.drop_nulls("correctness")
    return {
        "a": a,
        "b": b,
        "settings": found.settings,
        "changes": dict(found.questions.group_by("change").len().rows()),
        "votes": dict(found.questions.group_by("correctness").len().rows()),
        "tests": dict(found.predictions.group_by("correctness").len().rows()),
        "num_tests": found.predictions.height,
        "rows": rows,
        "num_rows": changed.height,
        "answered": answered.head(_SHOWN_CHANGES).to_dicts(),
    }


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
    return _href(view, f"question/{quote(question_id, safe='')}", kept)


def highlighted(text: str, answer: str | None) -> Markup:
    """Escape a text, and mark the last place where its answer occurs."""
    text = text.strip()
    place = text.rfind(answer) if answer else -1
    if answer is None or place < 0:
        return escape(visible(text))
    before, after = text[:place], text[place + len(answer) :]
    return Markup("{}<mark>{}</mark>{}").format(visible(before), visible(answer), visible(after))


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
        "thought": visible(row["reasoning"] or ""),
        "body": highlighted(row["text"] or row["error"] or "", row["answer_raw"]),
    }


def _messages(record: QuestionRecord) -> list[dict[str, str]]:
    if isinstance(record.prompt, str):
        return [{"role": "text", "content": record.prompt}]
    return record.prompt or []


def _vote_chart(view: View, summary: Summary, name: str) -> Markup | None:
    bars = []
    frame: pl.DataFrame = getattr(summary, name)
    for row in frame.iter_rows(named=True):
        low, high = row["low"], row["high"]
        where = f"{name} >= {low - 1e-9:.9f} AND {name} < {high - 1e-9:.9f}"
        if low == high:
            where = f"{name} > 0.999999"
        right = row["num_correct"] / row["num_with_gold"] if row["num_with_gold"] else None
        label = "" if right is None else f"{right:.0%}"
        title = f"{low:.1f} to {high:.1f}: {row['num_questions']:,} questions, {label or '-'} right"
        href = _href(view, "rows", {"where": where})
        bars.append(Bar(low, high, row["num_questions"], title, label=label, href=href))
    return bar_chart(bars, name, "questions, with the accuracy of their majority answers")


def _score_chart(view: View, part: pl.DataFrame) -> tuple[int, Markup | None]:
    round_ = int(part["round"][0])
    summed = part.group_by("polarity", "low", maintain_order=True).agg(pl.col("count").sum())
    bars = []
    for row in summed.sort("count", descending=True).iter_rows(named=True):
        low = row["low"]
        where = (
            f"polarity = '{row['polarity']}' AND quality_score >= {low:.2f} "
            f"AND quality_score < {low + 0.05:.2f}"
        )
        title = f"{row['polarity']}, {low:.2f} to {low + 0.05:.2f}: {row['count']:,} rationales"
        tone = 0 if row["polarity"] == "positive" else 1
        bars.append(
            Bar(
                low,
                low + 0.05,
                row["count"],
                title,
                href=_href(view, "rows", {"where": where}),
                tone=tone,
            )
        )
    return round_, bar_chart(bars, "quality score", "rationales")


def _by_round(bins: pl.DataFrame) -> Sequence[pl.DataFrame]:
    """Bins of the first and the last round."""
    rounds = bins["round"].unique().sort().to_list()
    return [
        bins.filter(pl.col("round") == number) for number in dict.fromkeys(rounds[:1] + rounds[-1:])
    ]


def _href(view: View, page: str, query: dict[str, str]) -> str:
    kept = {name: value for name, value in query.items() if value}
    return f"/runs/{quote(str(view.run_id), safe='')}/{page}" + (
        f"?{urlencode(kept)}" if kept else ""
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() and len(text) < 12 else 0
