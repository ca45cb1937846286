"""An audit as text, and as an HTML page in the style of the report."""

from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from qcrd_core.inspect.audit.audit import Audit
from qcrd_core.inspect.audit.charts import audit_charts
from qcrd_core.inspect.view import View
from qcrd_core.report.html import PAGE_CSS, templates
from qcrd_core.report.teachers import HEADINGS, NOTE, TeacherReport
from qcrd_core.report.text import columns, visible

_HERE = Path(__file__).parent
_SHOWN = 50


def audit_text(found: Audit) -> str:
    """Format an audit as plain text."""
    lines = [
        f"{found.name}: {found.num_rationales:,} rationales of {found.votes.height:,} questions"
    ]
    lines += ["", "agreement    questions  majority accuracy"]
    for row in found.bins.iter_rows(named=True):
        right = row["num_correct"] / row["num_with_gold"] if row["num_with_gold"] else None
        name = f"{row['low']:.1f} to {row['high']:.1f}" if row["low"] < row["high"] else "1.0"
        lines.append(f"{name:<12}{row['num_questions']:>10,}  {_cell(right)}")
    if found.teachers is not None:
        lines += ["", *_teachers(found.teachers)]
    lines += [
        "",
        "agreement at least",
        "             coverage  precision of the majority as a label",
    ]
    for row in found.precision.filter(pl.col("num_questions") > 0).iter_rows(named=True):
        shares = f"{_cell(row['coverage']):>9}  {_cell(row['precision']):>9}"
        lines.append(f"{row['min_agreement']:<12.1f}{shares}")
    lines += ["", "samples  majority accuracy  tokens per question"]
    for row in found.sweep.rows.iter_rows(named=True):
        tokens = "-" if row["num_tokens"] is None else f"{row['num_tokens']:,.0f}"
        mark = "  <- knee" if row["k"] == found.sweep.knee else ""
        lines.append(f"{row['k']:>7}  {_cell(row['accuracy']):>17}  {tokens:>19}{mark}")
    if found.settled.height:
        lines += [
            "",
            "stop_when_settled  cost of all  majority changed  majority accuracy (of all)",
        ]
    for row in found.settled.iter_rows(named=True):
        lines.append(
            f"{row['bound']:>17g}  {_cell(row['cost']):>11}  {_cell(row['changed']):>16}  "
            f"{_cell(row['accuracy']):>17} ({_cell(row['accuracy_of_all'])})"
        )
    copies, leaked = found.duplicates, found.leakage
    num_exact = leaked.found.filter(pl.col("similarity") == 1).height
    lines += [
        "",
        f"duplicates  {copies.num_exact:,} exact and {copies.num_near:,} near, among "
        f"{copies.num_rationales:,} rationales of {copies.num_questions:,} questions",
        f"leakage     {leaked.found.height:,} of {leaked.num_held_out:,} held-out questions also "
        f"appear in train, {num_exact:,} of them exactly"
        if leaked.num_held_out
        else "leakage     not measured, because there are no test or validation questions",
    ]
    lines.append(f"steps       {found.steps.summary}")
    lines.append(f"thoughts    {found.thoughts.summary}")
    lines += [f"            {problem}" for problem in found.thoughts.problems]
    lines.append(f"lengths     {found.lengths.summary}")
    lines += [f"            {problem}" for problem in found.lengths.problems]
    return visible("\n".join(lines))


def _teachers(found: TeacherReport) -> list[str]:
    rows = [list(HEADINGS), *(row.cells for row in found.rows)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(HEADINGS))]
    table = [
        columns(((cell, width if place else -width) for place, (cell, width) in pairs), gap="  ")
        for pairs in (enumerate(zip(row, widths, strict=True)) for row in rows)
    ]
    return [*table, found.summary]


def write_audit(view: View, found: Audit) -> str:
    """Write `audit.html`, and replace an earlier one.

    Args:
        view: The run or store that was audited.
        found: The results.

    Returns:
        Path of the page in the store.

    Raises:
        StoreError: If the store cannot be written.
    """
    rel = f"{found.folder}/audit.html"
    view.store.write_bytes(rel, render(found).encode())
    return rel


def render(found: Audit) -> str:
    """Render an audit as an HTML page that has no scripts and loads nothing."""
    return templates(_HERE).get_template("audit.html.jinja").render(_context(found))


def _context(found: Audit) -> dict[str, Any]:
    return {
        "css": Markup(PAGE_CSS),  # our own file, so it needs no escaping
        "found": found,
        "teacher_headings": HEADINGS,
        "teacher_note": NOTE,
        "bins": found.bins.to_dicts(),
        "precision": found.precision.filter(pl.col("num_questions") > 0).to_dicts(),
        "sweep": found.sweep.rows.to_dicts(),
        "settled": found.settled.to_dicts(),
        "leaked": found.leakage.found.head(_SHOWN).to_dicts(),
        "charts": audit_charts(found),
    }


def _cell(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
