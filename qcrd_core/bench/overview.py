"""The first page of the results: every bench in one figure, three sentences and one table."""

from collections.abc import Mapping, Sequence

import polars as pl
from markupsafe import Markup

from qcrd_core.bench.results import ALL_DATA, BenchResults
from qcrd_core.bench.statistics import Comparison
from qcrd_core.bench.text import accuracy_text, difference_text, plural
from qcrd_core.report.markdown import table
from qcrd_core.report.plots import Whisker, share_rows
from qcrd_core.report.svg import ticks
from qcrd_core.report.text import visible

_REFERENCE = "dss_sc"
_PAPER = "qcrd"
_RIVALS = frozenset({"finetune", "single_task", "dss", "mi", "rft", "simpo", _REFERENCE})
"""Methods of others. All else is QCRD or built on it."""


def overview(benches: Sequence[BenchResults], image: str | None) -> str:
    """Render the first page.

    Args:
        benches: All benches.
        image: Path of the figure that `draw_overview` made; None leaves it out.

    Returns:
        Markdown without a heading; empty if no bench compares anything with DSS-SC.
    """
    compared = [bench for bench in benches if _ours(bench)]
    if not compared:
        return ""
    every = [found for bench in compared for found in _ours(bench).values()]
    above = [found for found in every if found.is_significant and found.difference > 0]
    below = [found for found in every if found.is_significant and found.difference < 0]
    figure = f"![Difference to DSS-SC by task, with intervals]({image})\n\n" if image else ""
    sentences = (
        "What a method must beat is `dss_sc`: the same samples of the same teacher, voted, and one "
        "of the majority's rationales per step, without contrast, weights or rounds. "
        f"Of {plural(len(every), 'comparison')} with it on {plural(len(compared), 'task')}, "
        f"{len(above)} are above it beyond chance{_names(above)} and {len(below)} below"
        f"{_names(below)}. "
        "A task cannot show a difference smaller than its last column says, in points."
    )
    head = ["task", "test questions x seeds", "`dss_sc`, %", "`qcrd` minus it", "the best minus it"]
    body = [_row(bench) for bench in compared]
    return f"{figure}{sentences}\n\n{table([*head, 'visible from'], body)}\n"


def draw_overview(benches: Sequence[BenchResults]) -> Markup | None:
    """Draw QCRD's and the best variant's difference to DSS-SC on each bench.

    Args:
        benches: All benches.

    Returns:
        An `<svg>` element; None if no difference has an interval.
    """
    rows = []
    for bench in benches:
        shown = {_PAPER: _ours(bench).get(_PAPER)} | {
            best.method: best for best in [_best(bench)] if best is not None
        }
        rows += [
            Whisker(
                name=visible(bench.description.name),
                note=visible(method)[:14],
                share=found.difference,
                interval=(found.interval.low, found.interval.high),
            )
            for method, found in shown.items()
            if found is not None and found.interval is not None
        ]
    if not rows:
        return None
    ends = [end for row in rows for end in (row.interval or ())]
    marks = ticks(min(0.0, *ends), max(0.0, *ends))
    return share_rows(rows, "accuracy minus that of dss_sc", "task", marks=marks)


def _ours(bench: BenchResults) -> Mapping[str, Comparison]:
    """Comparisons of QCRD and what is built on it with DSS-SC, by method, on all data."""
    return {
        method: found
        for (method, reference, share), found in bench.comparisons.items()
        if reference == _REFERENCE and share == ALL_DATA and method not in _RIVALS
    }


def _best(bench: BenchResults) -> Comparison | None:
    return max(_ours(bench).values(), key=lambda found: found.difference, default=None)


def _row(bench: BenchResults) -> list[str]:
    ours, best = _ours(bench), _best(bench)
    assert best is not None
    cells = bench.cells.filter(pl.col("status") == "ok", pl.col("share") == ALL_DATA)
    paper = ours.get(_PAPER)
    widths = [found.interval.high - found.interval.low for found in ours.values() if found.interval]
    return [
        f"`{visible(bench.description.name)}`",
        f"{max(cells['num_test'].to_list()):,} x {len(best.seeds)}",
        accuracy_text(bench.summaries.get((_REFERENCE, ALL_DATA))),
        "-" if paper is None else _marked(paper),
        f"`{visible(best.method)}` {_marked(best)}",
        f"{50 * max(widths):.1f}" if widths else "-",
    ]


def _marked(found: Comparison) -> str:
    text = difference_text(found)
    return f"**{text}**" if found.is_significant else text


def _names(found: Sequence[Comparison]) -> str:
    names = sorted({item.method for item in found})
    return f" ({', '.join(f'`{visible(name)}`' for name in names)})" if names else ""
