"""The plots of a bench, and the numbers they show."""

from collections.abc import Mapping, Sequence
from itertools import chain

import polars as pl
from markupsafe import Markup

from qcrd_core.bench.results import ALL_DATA, BenchResults
from qcrd_core.bench.statistics import Summary
from qcrd_core.report.plots import Axis, Line, Whisker, line_chart, share_rows
from qcrd_core.report.svg import NUM_TONES, ticks
from qcrd_core.report.text import visible

_CURVE_HEIGHT = 330
_LEAST_SPAN = 0.02


def plots(results: BenchResults) -> Mapping[str, Markup]:
    """Draw the plots of a bench.

    Args:
        results: The bench.

    Returns:
        The plots `accuracy`, `shares` and `validation` by name, except those without numbers.
    """
    drawn = {
        "accuracy": _accuracy(results),
        "shares": _shares(results),
        "validation": _validation(results),
    }
    return {name: drawing for name, drawing in drawn.items() if drawing is not None}


def validation_curves(results: BenchResults) -> dict[str, list[float]]:
    """Validation accuracy by round on all data, mean over seeds.

    Args:
        results: The bench.

    Returns:
        By method, in the order of the tables: one value per round, while every seed has one.
    """
    cells = results.cells.filter(pl.col("status") == "ok", pl.col("share") == ALL_DATA)
    curves = {}
    for method in results.description.methods:
        by_seed = cells.filter(pl.col("method") == method)["validation_accuracy"].to_list()
        if by_seed:
            # Not strict: rounds that only some seeds have are dropped, so that each mean is over
            # the same seeds.
            rounds = zip(*by_seed, strict=False)
            curves[method] = [sum(values) / len(values) for values in rounds]
    return curves


def _accuracy(results: BenchResults) -> Markup | None:
    measured = _measured(results, results.description.methods, [ALL_DATA])
    if not measured:
        return None
    rows = [
        Whisker(
            name=visible(summary.method),
            note=_note(summary),
            share=summary.mean or 0.0,
            interval=_ends(summary),
            singles=list(summary.accuracies.values()),
        )
        for summary in measured
    ]
    values = [value for row in rows for value in (*row.singles, *(row.interval or ()))]
    label = "test accuracy: seeds, their mean and its interval"
    return share_rows(rows, label, "method", marks=_marks(values))


def _shares(results: BenchResults) -> Markup | None:
    lines = []
    for method in results.description.share_methods:
        measured = _measured(results, [method], results.shares)
        if len(measured) > 1:
            intervals = [_ends(summary) for summary in measured]
            shares = [summary.share for summary in measured]
            means = [summary.mean or 0.0 for summary in measured]
            band = [ends for ends in intervals if ends] if all(intervals) else ()
            lines.append(_line(results, method, shares, means, band))
    if not lines:
        return None
    values = [value for line in lines for value in (*line.y, *chain.from_iterable(line.band))]
    x_axis = Axis("share of the training questions", is_share=True, marks=results.shares)
    label = "test accuracy, mean over seeds and its interval"
    return line_chart(lines, x_axis, Axis(label, is_share=True, marks=_marks(values)))


def _validation(results: BenchResults) -> Markup | None:
    lines = [
        _line(results, method, range(len(curve)), curve)
        for method, curve in validation_curves(results).items()
    ]
    if not lines:
        return None
    marks = _marks([value for line in lines for value in line.y])
    y_axis = Axis("validation accuracy, mean over seeds", is_share=True, marks=marks)
    return line_chart(lines, Axis("round"), y_axis, height=_CURVE_HEIGHT)


def _line(
    results: BenchResults,
    method: str,
    x: Sequence[float],
    y: Sequence[float],
    band: Sequence[tuple[float, float]] = (),
) -> Line:
    """A curve that looks the same in every plot. References have the strongest colours."""
    references = results.description.references
    others = [name for name in results.description.methods if name not in references]
    place = [*references, *others].index(method)
    return Line(visible(method), x, y, place % NUM_TONES, band, is_dashed=place >= NUM_TONES)


def _measured(
    results: BenchResults, methods: Sequence[str] | Mapping[str, str], shares: Sequence[float]
) -> list[Summary]:
    found = [results.summaries.get((method, share)) for method in methods for share in shares]
    return [summary for summary in found if summary is not None and summary.mean is not None]


def _ends(summary: Summary) -> tuple[float, float] | None:
    return (summary.interval.low, summary.interval.high) if summary.interval else None


def _note(summary: Summary) -> str:
    spread = summary.standard_deviation
    return f"{(summary.mean or 0.0) * 100:.1f}" + (
        f" ± {spread * 100:.1f}" if spread is not None else ", one seed"
    )


def _marks(values: Sequence[float]) -> list[float]:
    """Ticks from the lowest to the highest value, because methods differ too little for 0 to 1."""
    low, high = min(values), max(values)
    widen = max(0.0, _LEAST_SPAN - (high - low)) / 2
    return ticks(max(0.0, low - widen), min(1.0, high + widen))
