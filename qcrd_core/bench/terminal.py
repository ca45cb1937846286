"""A bench as plain text, at most 100 columns."""

import textwrap
from collections.abc import Sequence

import polars as pl

from qcrd_core.bench.results import ALL_DATA, BenchResults
from qcrd_core.bench.text import accuracy_text, difference_text, interval_text, plural
from qcrd_core.report.svg import shorten
from qcrd_core.report.text import visible

_WIDTH = 100
_NAME, _SEEDS, _ACCURACY, _INTERVAL, _DIFFERENCE = 22, 6, 12, 14, 23
_REFERENCES = 2
"""Columns that fit beside the accuracies; further references get a table of their own."""


def terminal_table(results: BenchResults) -> str:
    """Say in a screenful what a bench came to.

    Args:
        results: The bench, whole or still running.

    Returns:
        Lines of at most 100 characters; longer names and errors are cut with an ellipsis.
    """
    about = results.description
    lines = [_fit(f"Bench {about.name}: accuracy on test, %"), ""]
    lines += _table(results, about.references[:_REFERENCES], with_accuracy=True)
    for start in range(_REFERENCES, len(about.references), _REFERENCES):
        references = about.references[start : start + _REFERENCES]
        lines += ["", *_table(results, references, with_accuracy=False)]
    if len(results.shares) > 1 and about.share_methods:
        lines += ["", *_shares(results)]
    note = (
        f"seeds: measured of started. ±: standard deviation over seeds. Intervals: "
        f"{about.confidence:.0%}; of differences, in points, over seeds and questions. *: the "
        "interval excludes 0 and a paired t-test over seeds agrees."
    )
    lines += ["", *textwrap.wrap(note, _WIDTH)]
    return "\n".join([*lines, *_failures(results)])


def _table(results: BenchResults, references: Sequence[str], *, with_accuracy: bool) -> list[str]:
    columns = [("method", -_NAME)]
    if with_accuracy:
        columns += [("seeds", _SEEDS), ("accuracy", _ACCURACY), ("interval", _INTERVAL)]
    columns += [(f"minus {name}", _DIFFERENCE) for name in references]
    lines = [_line([(shorten(visible(text), abs(width) - 1), width) for text, width in columns])]
    for method in results.description.methods:
        cells = [(shorten(visible(method), _NAME - 1), -_NAME)]
        if with_accuracy:
            cells += _accuracy(results, method, ALL_DATA)
        cells += [(_difference(results, method, name), _DIFFERENCE) for name in references]
        lines.append(_line(cells))
    return lines


def _shares(results: BenchResults) -> list[str]:
    methods = results.description.share_methods
    head = [("share", -_NAME), *[(shorten(visible(name), 23), 24) for name in methods]]
    lines = [_line(head)]
    for share in results.shares:
        cells = [(f"{share:.0%} of the questions", -_NAME)]
        for method in methods:
            cells.append((accuracy_text(results.summaries.get((method, share))), 24))
        lines.append(_line(cells))
    return [_fit(line) for line in lines]


def _accuracy(results: BenchResults, method: str, share: float) -> list[tuple[str, int]]:
    summary = results.summaries.get((method, share))
    num_measured = len(summary.accuracies) if summary else 0
    num_failed = summary.num_failed if summary else 0
    return [
        (f"{num_measured}/{num_measured + num_failed}", _SEEDS),
        (accuracy_text(summary), _ACCURACY),
        (interval_text(summary), _INTERVAL),
    ]


def _difference(results: BenchResults, method: str, reference: str) -> str:
    comparison = results.comparisons.get((method, reference, ALL_DATA))
    if comparison is None:
        return "" if method == reference else "-"
    return difference_text(comparison) + ("*" if comparison.is_significant else " ")


def _failures(results: BenchResults) -> list[str]:
    failed = results.cells.filter(pl.col("status") == "failed").sort("method", "share", "seed")
    if failed.is_empty():
        return []
    lines = ["", f"{plural(failed.height, 'cell')} of {results.cells.height} failed:"]
    for row in failed.iter_rows(named=True):
        error = " ".join(row["error"].split())
        lines.append(_fit(f"  {row['method']}, {row['share']:.0%}, seed {row['seed']}: {error}"))
    return lines


def _line(cells: Sequence[tuple[str, int]]) -> str:
    """Texts in columns: to the left of a negative width, to the right of a positive one."""
    parts = [f"{text:<{-width}}" if width < 0 else f"{text:>{width}}" for text, width in cells]
    return "".join(parts).rstrip()


def _fit(text: str) -> str:
    return shorten(visible(text), _WIDTH)
