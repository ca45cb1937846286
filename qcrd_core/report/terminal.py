"""The report as plain text, at most 100 columns."""

import textwrap

from qcrd_core.report import summary
from qcrd_core.report.data import RunData, collect_run
from qcrd_core.report.summary import RoundNumbers
from qcrd_core.report.text import percent, seconds, visible
from qcrd_core.runs import RunPaths
from qcrd_core.store import Store

_WIDTH = 100
_MAX_ROUNDS = 12


def terminal_summary(store: Store, run_id: str) -> str:
    """Say in a screenful what a run came to.

    Args:
        store: Where the run is.
        run_id: Its name.

    Returns:
        Lines of at most 100 characters; longer names are cut with an ellipsis.

    Raises:
        StoreError: If there is no such run.
        DataError: If a table of the run is damaged.
    """
    data = collect_run(store, run_id)
    rounds = summary.round_numbers(data)
    lines = [f"Run {run_id}", "", *_accuracies(data), ""]
    if rounds:
        lines += [*_rounds(rounds, summary.chosen_round(data)), ""]
    for text in summary.warnings(data):
        lines += [*textwrap.wrap(f"Warning: {text}", _WIDTH), ""]
    times = ", ".join(f"{name} {seconds(value)}" for name, value in summary.timings(data))
    lines += textwrap.wrap(visible(f"Time: {times or 'not measured'}"), _WIDTH)
    if store.exists(RunPaths(run_id).report):
        # A path is kept whole: a cut one could not be opened.
        report = RunPaths(run_id).report
        lines.append(f"Report: {store.local(report) if store.is_local else f'{store}/{report}'}")
    return "\n".join(lines)


def _accuracies(data: RunData) -> list[str]:
    test = summary.student_accuracy(data)
    vote = summary.vote_numbers(data)
    student = "not measured"
    if test is not None:
        level = data.config.evaluation.confidence
        student = (
            f"{test.share:.1%}  ({level:.0%} interval {test.interval.low:.1%} to "
            f"{test.interval.high:.1%}, {test.num_correct} of {test.num_questions})"
        )
    rows = [
        ("student, test", student),
        ("teacher, single sample, training questions", percent(vote.get("sample_accuracy"))),
        ("teacher, majority, training questions", percent(vote.get("majority_accuracy"))),
        ("teacher", summary.teacher_name(data.config.teacher.model)),
    ]
    return [_fit(f"  {name:<44}{value}") for name, value in rows]


def _rounds(rounds: list[RoundNumbers], chosen: int | None) -> list[str]:
    lines = [
        "  round    loss  active hinges  validation  AUC polarity  AUC right    ECE  negatives"
    ]
    shown = rounds if len(rounds) <= _MAX_ROUNDS else rounds[-_MAX_ROUNDS:]
    if len(shown) < len(rounds):
        lines.append(f"  ... {len(rounds) - len(shown)} earlier rounds are in the report")
    for row in shown:
        mark = "*" if row.round == chosen else " "
        cells = (
            _cell(row.train_loss, 8, ".3f"),
            _cell(row.active_hinge_share, 15, ".1%"),
            _cell(row.validation_accuracy, 12, ".1%"),
            _cell(row.auc_polarity, 14, ".3f"),
            _cell(row.auc_correct, 11, ".3f"),
            _cell(row.ece, 7, ".3f"),
            _cell(row.num_negatives, 11, ",.0f"),
        )
        lines.append(f"{mark} {row.round:>5}{''.join(cells)}")
    if chosen is not None:
        lines.append("* chosen by validation accuracy")
    return lines


def _cell(value: float | None, width: int, form: str) -> str:
    return f"{'-' if value is None else format(value, form):>{width}}"


def _fit(text: str) -> str:
    text = visible(text)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
