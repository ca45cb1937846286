"""A bench as plain text, at most 100 columns."""

import textwrap
from collections.abc import Sequence

import polars as pl

from qcrd_core.bench.results import ALL_DATA, BenchResults
from qcrd_core.bench.text import accuracy_text, difference_text, interval_text, plural
from qcrd_core.report.text import TERMINAL_WIDTH, columns, fit, shorten, visible

_NAME, _SEEDS, _ACCURACY, _INTERVAL, _DIFFERENCE = 22, 6, 12, 14, 23
_REFERENCES = 2
"""Reference columns that fit next to the accuracies; more references get another table."""


def terminal_table(results: BenchResults) -> str:
    """Describe the results of a bench in a screenful.

    Args:
        results: The bench, complete or still running.

    Returns:
        Lines of at most 100 characters; longer names and errors are cut with an ellipsis.
    """
    described = results.description
    lines = [fit(f"Bench {described.name}: test accuracy in %"), ""]
    lines += _table(results, described.references[:_REFERENCES], with_accuracy=True)
    for start in range(_REFERENCES, len(described.references), _REFERENCES):
        references = described.references[start : start + _REFERENCES]
        lines += ["", *_table(results, references, with_accuracy=False)]
    if len(results.shares) > 1 and described.share_methods:
        lines += ["", *_shares(results)]
    note = (
        f"seeds: finished / started. ±: standard deviation over seeds. Intervals are at "
        f"{described.confidence:.0%}; those of differences (in points) are over seeds and "
        "questions. *: the interval excludes 0, and a paired t-test over seeds agrees."
    )
    lines += ["", *textwrap.wrap(note, TERMINAL_WIDTH)]
    return "\n".join([*lines, *_failures(results)])


def _table(results: BenchResults, references: Sequence[str], *, with_accuracy: bool) -> list[str]:
    heads = [("method", -_NAME)]
    if with_accuracy:
        heads += [("seeds", _SEEDS), ("accuracy", _ACCURACY), ("interval", _INTERVAL)]
    heads += [(f"minus {name}", _DIFFERENCE) for name in references]
    lines = [columns([(shorten(visible(text), abs(width) - 1), width) for text, width in heads])]
    for method in results.description.methods:
        cells = [(shorten(visible(method), _NAME - 1), -_NAME)]
        if with_accuracy:
            cells += _accuracy(results, method, ALL_DATA)
        cells += [(_difference(results, method, name), _DIFFERENCE) for name in references]
        lines.append(columns(cells))
    return lines


def _shares(results: BenchResults) -> list[str]:
    methods = results.description.share_methods
    head = [("share", -_NAME), *[(shorten(visible(name), 23), 24) for name in methods]]
    lines = [columns(head)]
    for share in results.shares:
        cells = [(f"{share:.0%} of the questions", -_NAME)]
        for method in methods:
            cells.append((accuracy_text(results.summaries.get((method, share))), 24))
        lines.append(columns(cells))
    return [fit(line) for line in lines]


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
        lines.append(fit(f"  {row['method']}, {row['share']:.0%}, seed {row['seed']}: {error}"))
    return lines
