"""An audit as text, and as one HTML page in the look of the report."""

from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from qcrd_core.inspect.audit.audit import Audit
from qcrd_core.inspect.audit.charts import audit_charts
from qcrd_core.inspect.view import View
from qcrd_core.report.html import PAGE_CSS, templates
from qcrd_core.report.text import visible

_HERE = Path(__file__).parent
_SHOWN = 50


def audit_text(found: Audit) -> str:
    """An audit as plain text."""
    lines = [
        f"{found.name}: {found.num_rationales:,} rationales of {found.votes.height:,} questions"
    ]
    lines += ["", "agreement    questions    right"]
    for row in found.bins.iter_rows(named=True):
        right = row["num_correct"] / row["num_with_gold"] if row["num_with_gold"] else None
        name = f"{row['low']:.1f} to {row['high']:.1f}" if row["low"] < row["high"] else "1.0"
        lines.append(f"{name:<12}{row['num_questions']:>10,}  {_cell(right)}")
    lines += ["", "kept from    coverage  precision of the majority as a label"]
    for row in found.precision.filter(pl.col("num_questions") > 0).iter_rows(named=True):
        shares = f"{_cell(row['coverage']):>9}  {_cell(row['precision']):>9}"
        lines.append(f"{row['min_agreement']:<12.1f}{shares}")
    lines += ["", "samples  majority right  tokens a question"]
    for row in found.sweep.rows.iter_rows(named=True):
        tokens = "-" if row["num_tokens"] is None else f"{row['num_tokens']:,.0f}"
        mark = "  <- knee" if row["k"] == found.sweep.knee else ""
        lines.append(f"{row['k']:>7}  {_cell(row['accuracy']):>14}  {tokens:>17}{mark}")
    copies, leaked = found.duplicates, found.leakage
    num_exact = leaked.found.filter(pl.col("similarity") == 1).height
    lines += [
        "",
        f"duplicates  {copies.num_exact:,} exact and {copies.num_near:,} near, of "
        f"{copies.num_rationales:,} rationales of {copies.num_questions:,} questions",
        f"leakage     {leaked.found.height:,} of {leaked.num_held_out:,} held-out questions stand "
        f"in train, {num_exact:,} of them exactly"
        if leaked.num_held_out
        else "leakage     not measured: there are no test or validation questions here",
    ]
    return visible("\n".join(lines))


def write_audit(view: View, found: Audit) -> str:
    """Write `audit.html`, over an earlier one.

    Args:
        view: What was audited.
        found: What was found.

    Returns:
        Path of the page in the store.

    Raises:
        StoreError: If the store refuses.
    """
    rel = f"{found.folder}/audit.html"
    view.store.write_bytes(rel, render(found).encode())
    return rel


def render(found: Audit) -> str:
    """An audit as a whole page of HTML: no script, nothing loaded from anywhere."""
    return templates(_HERE).get_template("audit.html.jinja").render(_context(found))


def _context(found: Audit) -> dict[str, Any]:
    return {
        "css": Markup(PAGE_CSS),  # our own
        "found": found,
        "bins": found.bins.to_dicts(),
        "precision": found.precision.filter(pl.col("num_questions") > 0).to_dicts(),
        "sweep": found.sweep.rows.to_dicts(),
        "leaked": found.leakage.found.head(_SHOWN).to_dicts(),
        "charts": audit_charts(found),
    }


def _cell(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
