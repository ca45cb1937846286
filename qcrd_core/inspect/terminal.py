"""The output of `qcrd inspect`: plain text of at most 100 columns, without control characters."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from qcrd_core.inspect.compare import RunDifference
from qcrd_core.inspect.find import Found
from qcrd_core.inspect.question import QuestionRecord
from qcrd_core.inspect.summary import Summary
from qcrd_core.report.text import TERMINAL_WIDTH, clip, columns, fit, percent

_BAR = 40
_SHOWN = 10


def summary_text(summary: Summary) -> str:
    """Format a summary."""
    return "\n".join(_lines(_summary(summary)))


def found_text(found: Found) -> str:
    """Format rows, with at most seven lines each."""
    lines = [f"{found.num_rows:,} rows found, {found.rows.height:,} shown"]
    for row in found.rows.iter_rows(named=True):
        lines += ["", *_row(row)]
    return "\n".join(_lines(lines))


def question_text(record: QuestionRecord) -> str:
    """Format everything about a question."""
    return "\n".join(_lines(_question(record)))


def difference_text(found: RunDifference) -> str:
    """Format the difference of two runs."""
    return "\n".join(_lines(_difference(found)))


def _summary(summary: Summary) -> Iterator[str]:
    yield summary.name
    splits = ", ".join(f"{count:,} {split}" for split, count in summary.num_questions.items())
    yield f"questions  {splits or 'none'}"
    yield ""
    names = ["source", "dataset", "generation", "round", "status", "num_rows", "num_tokens"]
    head = ["source", "data set", "generation", "round", "status", "rows", "tokens"]
    if summary.counts.height:
        yield from _table(head, summary.counts.select(names).rows())
    else:
        yield "no rationales yet"
    if summary.lengths.height:
        yield ""
        names = ["source", "unit", "q05", "q50", "q95", "max"]
        head = ["length of", "unit", "5%", "median", "95%", "longest"]
        yield from _table(head, summary.lengths.select(names).rows())
    if summary.failures.height:
        yield ""
        shown = summary.failures.head(_SHOWN)
        yield from _table(("rows", "reason of failure"), shown.select("num_rows", "error").rows())
        if summary.failures.height > _SHOWN:
            yield f"and {summary.failures.height - _SHOWN} more reasons"
    if summary.vote:
        yield from ["", *_vote(summary)]
    if summary.curation:
        marks = ", ".join(f"{count:,} {mark}" for mark, count in summary.curation.items())
        yield from ["", f"curators' marks  {marks}"]


def _vote(summary: Summary) -> Iterator[str]:
    vote = summary.vote
    yield (
        f"vote  {vote['num_questions']:,} questions, {vote['num_ties']:,} ties, "
        f"{vote['num_abstained']:,} abstained, mean agreement {percent(vote['mean_agreement'])}, "
        f"accuracy {percent(vote['majority_accuracy'])}"
    )
    if summary.num_other_text:
        yield (
            f"{summary.num_other_text:,} rows did not vote: they answer another text of their "
            "question, or are stored twice"
        )
    for title, bins in (("agreement", summary.agreement), ("margin", summary.margin)):
        yield ""
        yield f"{title:<12}{'questions':>11}  {'right':>7}"
        most = max(bins["num_questions"], default=1)
        for low, high, num_questions, num_gold, num_correct in bins.rows():
            bar = "#" * max(1, round(_BAR * num_questions / most))
            right = f"{num_correct / num_gold:.1%}" if num_gold else "-"
            name = f"{low:.1f} to {high:.1f}" if low < high else f"{low:.1f}"
            yield f"{name:<12}{num_questions:>11,}  {right:>7}  {bar}"


def _row(row: dict[str, Any]) -> Iterator[str]:
    facts = [f"answer {_shown(row['answer'])}"]
    for name in (
        "gold_answer",
        "majority_answer",
        "agreement",
        "polarity",
        "quality_score",
        "mark",
    ):
        if row[name] is not None:
            facts.append(f"{name.replace('_', ' ')} {_shown(row[name])}")
    head = f"{row['question_id']}  {_origin(row)}  {row['status']}  {', '.join(facts)}"
    yield from _wrapped(head, 0, 4)
    text = row["rationale"] or row["text"] or row["reasoning"] or row["error"] or ""
    yield from _wrapped(" ".join(clip(text).split()), 4, 3)


def _question(record: QuestionRecord) -> Iterator[str]:
    question = record.question
    yield f"{question['question_id']} ({question['split']})"
    yield from _wrapped(question["question"], 2, 40)
    yield f"  gold answer {_shown(question['gold_answer'])}"
    if record.vote is not None:
        vote = record.vote
        yield (
            f"  majority {_shown(vote['majority_answer'])}, {vote['vote_count']} of "
            f"{vote['num_valid']} samples with an answer, margin {_shown(vote['margin'])}"
            f"{', tie' if vote['is_tie'] else ''}{', made of parts' if record.is_composed else ''}"
            f"{', abstained' if vote['abstained'] else ''}"
        )
    for row in record.rows.iter_rows(named=True):
        yield ""
        facts = [f"answer {_shown(row['answer'])}", *_verdicts(row)]
        yield f"{_origin(row)}  {row['status']}  {', '.join(facts)}"
        yield f"    {row['model']} {row['model_revision'] or ''} generation {row['generation']}"
        if row["reasoning"]:
            yield from _wrapped(f"[thought] {row['reasoning']}", 4, 40)
        yield from _wrapped(row["text"] or row["error"] or "", 4, 40)
        if row["text"] and row["error"]:
            yield from _wrapped(f"[no answer] {row['error']}", 4, 2)
        yield from _scores(record, row)
    for row in record.predictions.iter_rows(named=True):
        yield f"student of round {row['round']}  answer {_shown(row['answer'])}"
        yield from _wrapped(row["text"], 4, 10)
    if record.prompt is not None:
        yield from ["", "The teacher's prompt:"]
        messages = record.prompt
        if isinstance(messages, str):
            messages = [{"role": "text", "content": messages}]
        for message in messages:
            yield f"  [{message['role']}]"
            yield from _wrapped(message["content"], 4, 200)


def _verdicts(row: dict[str, Any]) -> Iterator[str]:
    if row["is_correct"] is not None:
        yield "right" if row["is_correct"] else "wrong"
    if row["in_majority"] is not None:
        yield "in the majority" if row["in_majority"] else "outvoted"
    if row["has_other_text"]:
        yield "answers another text of the question"
    if row["mark"] is not None:
        yield f"marked {row['mark']}{': ' + row['comment'] if row['comment'] else ''}"


def _scores(record: QuestionRecord, row: dict[str, Any]) -> Iterator[str]:
    same = (pl.col("source").cast(pl.String) == row["source"]) & (
        pl.col("sample_idx") == row["sample_idx"]
    )
    if row["round"] is not None:
        same &= pl.col("round") == row["round"]
    for score in record.scores.filter(same).iter_rows(named=True):
        yield (
            f"    round {score['round']}: {score['polarity']}, quality "
            f"{_shown(score['quality_score'])}, weight {_shown(score['rationale_weight'])}"
        )


def _difference(found: RunDifference) -> Iterator[str]:
    yield from [f"setting  {text}" for text in found.settings] or ["settings are the same"]
    counts = dict(found.questions.group_by("change").len().rows())
    words = ("new", "gone", "flipped", "same")
    yield "votes    " + ", ".join(f"{counts.get(word, 0):,} {word}" for word in words)
    yield "         " + _repaired(found.questions)
    both = f"{found.predictions.height:,} questions answered by both students"
    yield f"test     {both}: {_repaired(found.predictions)}"
    flipped = found.questions.filter(pl.col("change") == "flipped")
    if flipped.height:
        yield ""
        names = (
            "question_id",
            "majority_a",
            "majority_b",
            "agreement_a",
            "agreement_b",
            "correctness",
        )
        head = ("question", "before", "after", "agreement before", "after", "")
        yield from _table(head, flipped.select(names).head(_SHOWN).rows())
        if flipped.height > _SHOWN:
            yield f"and {flipped.height - _SHOWN:,} more flipped majorities"


def _repaired(frame: pl.DataFrame) -> str:
    counts = dict(frame.group_by("correctness").len().rows())
    fixed, broken = counts.get("fixed", 0), counts.get("broken", 0)
    return f"{fixed:,} became right, {broken:,} became wrong"


def _origin(row: dict[str, Any]) -> str:
    round_ = "" if row["round"] is None else f" round {row['round']}"
    return f"{row['source']}{round_} sample {row['sample_idx']}"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    cells = [[*head], *([_shown(value) for value in row] for row in rows)]
    widths = [min(40, max(len(row[i]) for row in cells)) for i in range(len(head))]
    for i in range(len(head)):
        if not all(isinstance(row[i], int | float | None) for row in rows):
            widths[i] = -widths[i]  # text is aligned to the left
    for row in cells:
        yield columns(zip(row, widths, strict=True), gap="  ")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if isinstance(value, float) else " ".join(str(value).split())


def _wrapped(text: str, indent: int, most: int) -> Iterator[str]:
    lines = [
        line
        for part in text.splitlines()
        for line in textwrap.wrap(part, TERMINAL_WIDTH - indent) or [""]
    ]
    for line in lines[:most]:
        yield " " * indent + line
    if len(lines) > most:
        yield " " * indent + f"... {len(lines) - most} more lines"


def _lines(lines: Iterator[str] | list[str]) -> Iterator[str]:
    """Make hidden characters visible, and cut long lines."""
    return (fit(line.replace("\n", " ")) for line in lines)
