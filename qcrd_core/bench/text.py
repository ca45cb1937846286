"""Format a bench's numbers, for Markdown and the terminal."""

from qcrd_core.bench.statistics import Comparison, Summary


def accuracy_text(summary: Summary | None) -> str:
    """Mean and standard deviation over seeds in percent; `-` without a finished seed."""
    if summary is None or summary.mean is None:
        return "-"
    spread = summary.standard_deviation
    return f"{summary.mean * 100:.1f}" + ("" if spread is None else f" ± {spread * 100:.1f}")


def interval_text(summary: Summary | None) -> str:
    """Interval of the mean in percent, or why there is none."""
    if summary is None or summary.mean is None:
        return "-"
    if summary.interval is None:
        return "one seed" if len(summary.accuracies) == 1 else "equal seeds"
    return f"[{summary.interval.low * 100:.1f}, {summary.interval.high * 100:.1f}]"


def difference_text(comparison: Comparison) -> str:
    """Difference and its interval in points; without an interval, a note of the single seed."""
    ends = comparison.interval
    spread = f" [{ends.low * 100:+.1f}, {ends.high * 100:+.1f}]" if ends else ", one seed"
    return f"{comparison.difference * 100:+.1f}{spread}"


def p_text(value: float | None) -> str:
    """A p-value to three decimals; `-` for None."""
    return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
