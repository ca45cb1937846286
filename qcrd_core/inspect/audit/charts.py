"""The charts of an audit."""

import polars as pl
from markupsafe import Markup

from qcrd_core.evaluation import accuracy_interval
from qcrd_core.inspect.audit.audit import Audit
from qcrd_core.report.plots import Axis, Line, Whisker, line_chart, share_rows

_CONFIDENCE = 0.95


def audit_charts(found: Audit) -> dict[str, Markup]:
    """Draw the results of an audit.

    Args:
        found: From `audit`.

    Returns:
        SVG by name: agreement, precision, samples, cost and similar. A chart is absent if its gold
        answers or token counts are missing, or if it would have fewer than two points.
    """
    made = {
        "agreement": _agreement(found),
        "precision": _precision(found),
        "samples": _samples(found),
        "cost": _cost(found),
        "similar": _similar(found),
    }
    return {name: chart for name, chart in made.items() if chart is not None}


def _agreement(found: Audit) -> Markup | None:
    known = found.bins.filter(pl.col("num_with_gold") > 0)
    rows = [
        _share(_bin_name(row["low"], row["high"]), row["num_correct"], row["num_with_gold"])
        for row in known.iter_rows(named=True)
    ]
    return share_rows(rows, "accuracy of the majority", "agreement") if rows else None


def _precision(found: Audit) -> Markup | None:
    rows = found.precision.filter(pl.col("num_questions") > 0)
    known = rows.drop_nulls("precision")
    if known.height < 2:
        return None
    x = [round(10 * value) for value in known["min_agreement"]]
    lines = [
        Line("precision", x, known["precision"].to_list(), 0),
        Line("coverage", x, known["coverage"].to_list(), 1),
    ]
    y_axis = Axis("share", low=0, high=1, is_share=True)
    return line_chart(lines, Axis("lowest agreement kept, in tenths"), y_axis)


def _samples(found: Audit) -> Markup | None:
    rows = found.sweep.rows
    if rows.height < 2:
        return None
    line = Line("majority", rows["k"].to_list(), rows["accuracy"].to_list(), 0)
    axis = Axis("accuracy", is_share=True)
    knee = rows.filter(pl.col("k") == (found.sweep.knee or -1))["accuracy"].to_list()
    return line_chart([line], Axis("samples per question"), axis, references=knee)


def _cost(found: Audit) -> Markup | None:
    rows = found.sweep.rows.drop_nulls("num_tokens")
    if rows.height < 2:
        return None
    line = Line("tokens", rows["k"].to_list(), rows["num_tokens"].to_list(), 1)
    axis = Axis("sampled tokens per question", low=0)
    return line_chart([line], Axis("samples per question"), axis)


def _similar(found: Audit) -> Markup | None:
    copies, leaked = found.duplicates, found.leakage
    num_exact = leaked.found.filter(pl.col("similarity") == 1).height
    counts = [
        ("repeated rationales", copies.num_exact, copies.num_rationales),
        ("nearly repeated", copies.num_near, copies.num_rationales),
        ("leaked questions", num_exact, leaked.num_held_out),
        ("nearly leaked", leaked.found.height - num_exact, leaked.num_held_out),
    ]
    rows = [_share(*count) for count in counts if count[2]]
    return share_rows(rows, "share", "kind") if rows else None


def _share(name: str, count: int, total: int) -> Whisker:
    interval = accuracy_interval(count, total, _CONFIDENCE)
    note = f"{count:,} of {total:,}"
    return Whisker(name, note, count / total, (interval.low, interval.high))


def _bin_name(low: float, high: float) -> str:
    return f"{low:.1f} to {high:.1f}" if low < high else "1.0"
