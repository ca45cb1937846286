"""The report as plain text, at most 100 columns."""

import textwrap

from qcrd_core.report import summary
from qcrd_core.report.data import collect_run
from qcrd_core.report.summary import RoundNumbers
from qcrd_core.report.text import TERMINAL_WIDTH, columns, fit, seconds, visible
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store


def terminal_summary(store: Store, run_id: str) -> str:
    """Describe the result of a run in a screenful.

    Args:
        store: The store that holds the run.
        run_id: The run's id.

    Returns:
        Lines of at most 100 characters; longer names are cut with an ellipsis.

    Raises:
        StoreError: If there is no such run.
        DataError: If a table of the run is damaged.
    """
    data = collect_run(store, run_id)
    rounds = summary.round_numbers(data)
    rows = [fit(f"  {name:<44}{value}") for name, value in summary.accuracies(data)]
    lines = [f"Run {run_id}", "", *rows, ""]
    if rounds:
        lines += [*_rounds(rounds, summary.chosen_round(data)), ""]
    for text in summary.run_warnings(data):
        lines += [*textwrap.wrap(f"Warning: {text}", TERMINAL_WIDTH), ""]
    times = ", ".join(f"{name} {seconds(value)}" for name, value in summary.timings(data))
    lines += textwrap.wrap(visible(f"Time: {times or 'not measured'}"), TERMINAL_WIDTH)
    if store.exists(RunPaths(run_id).report):
        # The path is not cut, because a cut path could not be opened.
        lines.append(f"Report: {store.shown(RunPaths(run_id).report)}")
    return "\n".join(lines)


def _rounds(rounds: list[RoundNumbers], chosen: int | None) -> list[str]:
    widths = [max(len(head) + 2, 8) for head, _, _ in summary.ROUND_COLUMNS]
    heads = [head for head, _, _ in summary.ROUND_COLUMNS]
    lines = [f"  round{columns(zip(heads, widths, strict=True))}"]
    shown = rounds[-summary.MAX_ROUNDS :]
    if len(shown) < len(rounds):
        lines.append(f"  ... {len(rounds) - len(shown)} earlier rounds are in the report")
    for row in shown:
        mark = "*" if row.round == chosen else " "
        cells = zip(summary.round_cells(row), widths, strict=True)
        lines.append(f"{mark} {row.round:>5}{columns(cells)}")
    if chosen is not None:
        lines.append("* chosen by validation accuracy")
    return lines
