"""What the Prefect UI shows of a run: a page of Markdown, tables of the vote, charts."""

import shlex
from collections.abc import Mapping, Sequence

import polars as pl
from markupsafe import Markup

from data_schemas import Metrics, Scores, Votes
from qcrd_core.evaluation import CONFIDENCE
from qcrd_core.report import charts, summary
from qcrd_core.report.data import RunData, collect_run
from qcrd_core.report.markdown import cell, table
from qcrd_core.report.page import CONDENSE_ROWS, vote_rows
from qcrd_core.report.svg import in_markdown
from qcrd_core.report.teachers import HEADINGS, NOTE, teacher_report
from qcrd_core.report.text import number, percent, plain_name, seconds
from qcrd_core.run.context import RunContext
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store
from qcrd_core.vote.majority import pseudo_label_precision

Row = dict[str, str]
_COUNTED = ("num_", "mean_tokens_")


def run_page(store: Store, run_id: str) -> str:
    """Describe the result of a run.

    Args:
        store: The store that holds the run.
        run_id: The run's id.

    Returns:
        Markdown.

    Raises:
        StoreError: If there is no such run.
        DataError: If a table of the run is damaged.
    """
    data = collect_run(store, run_id)
    test, paths, place = (
        summary.student_accuracy(data.test),
        RunPaths(run_id),
        shlex.quote(store.url()),
    )
    right = "not measured" if test is None else f"{test.share:.1%} right on test"
    times = [(plain_name(name), seconds(value)) for name, value in summary.timings(data)]
    parts = [
        f"# {cell(data.config.run.name)}: {right}",
        *(f"> **Warning:** {text}" for text in summary.run_warnings(data)),
        table(("what", "value"), [(name, cell(text)) for name, text in summary.accuracies(data)]),
        *_teachers(data),
        *_rounds(data),
        *_scores(data),
        "## Time",
        table(("stage", "took"), times) if times else "Not measured.",
        "## Where",
        f"- report with curves, histograms and examples: `{store}/{paths.report}`\n"
        f"- student: `{store}/{paths.best_student}`",
        f"To answer the questions of a file: `qcrd predict {shlex.quote(data.student)} FILE`. To "
        f"make the student champion if it is better: `qcrd promote {run_id} --store {place}`.",
    ]
    return "\n\n".join(parts) + "\n"


def vote_counts(context: RunContext) -> list[Row]:
    """The counts and shares of a vote in reading order, as table rows."""
    metrics = context.store.read_table(context.paths.metrics, Metrics)
    found = summary.last_values(metrics, "vote")
    return _counts(found, vote_rows(found))


def condense_counts(context: RunContext) -> list[Row]:
    """The counts, shares and lengths of condensing in reading order, as table rows."""
    metrics = context.store.read_table(context.paths.metrics, Metrics)
    return _counts(summary.last_values(metrics, "condense"), CONDENSE_ROWS)


def _counts(found: Mapping[str, float], rows: Sequence[tuple[str, str]]) -> list[Row]:
    return [
        {
            "what": label,
            "value": (number if name.startswith(_COUNTED) else percent)(found.get(name)),
        }
        for name, label in rows
    ]


def vote_agreement(context: RunContext) -> list[Row]:
    """Accuracy of a vote's majority answers by the voters' agreement, as table rows."""
    votes = context.store.read_table(context.paths.votes, Votes)
    bins = pseudo_label_precision(votes)
    # With few samples per question several rows hold the same questions; keep one of them.
    bins = bins.unique("num_questions", keep="last", maintain_order=True)
    return [
        {
            "agreement at least": f"{row['min_agreement']:.0%}",
            "questions": f"{row['num_questions']:,}",
            "share of questions": percent(row["coverage"]),
            "majority accuracy": percent(row["precision"]),
        }
        for row in bins.filter(pl.col("num_questions") > 0).iter_rows(named=True)
    ]


def learning_curve(context: RunContext) -> str | None:
    """Validation accuracy by round, as an image in Markdown; None if it was not measured."""
    metrics = context.store.read_table(context.paths.metrics, Metrics)
    return _curve(metrics, CONFIDENCE)


def score_histograms(context: RunContext, round_: int) -> str | None:
    """Quality scores of a round, as an image in Markdown; None if there are none."""
    return _histograms(context.store.read_table(context.paths.scores(round_), Scores))


def _curve(metrics: pl.DataFrame, confidence: float) -> str | None:
    return _image("Validation accuracy by round", charts.validation_chart(metrics, confidence))


def _histograms(scores: pl.DataFrame) -> str | None:
    return _image("Quality scores", charts.score_chart(scores))


def _image(name: str, drawing: Markup | None) -> str | None:
    return None if drawing is None else in_markdown(drawing, name)


def _teachers(data: RunData) -> list[str]:
    config = data.config
    found = teacher_report(data.metrics, config.teachers, config.voting.weights)
    if found is None:
        return []
    rows = [[cell(text) for text in row.cells] for row in found.rows]
    summary_ = f"{found.summary[:1].upper()}{found.summary[1:]}."
    return ["## Teachers", table(HEADINGS, rows), f"{summary_} {NOTE}"]


def teacher_rows(context: RunContext) -> list[Row]:
    """How right each of several teachers is, as table rows; none for one teacher."""
    metrics = context.store.read_table(context.paths.metrics, Metrics)
    config = context.config
    found = teacher_report(metrics, config.teachers, config.voting.weights)
    rows = [] if found is None else found.rows
    return [dict(zip(HEADINGS, row.cells, strict=True)) for row in rows]


def _rounds(data: RunData) -> list[str]:
    rounds, chosen = summary.round_numbers(data), summary.chosen_round(data)
    if not rounds:
        return []
    shown = rounds[-summary.MAX_ROUNDS :]
    head = ("round", *(name for name, _, _ in summary.ROUND_COLUMNS))
    rows = [
        (f"**{row.round}**" if row.round == chosen else str(row.round), *summary.round_cells(row))
        for row in shown
    ]
    note = "The chosen round is in bold. It has the highest validation accuracy."
    if len(shown) < len(rounds):
        note += f" {len(rounds) - len(shown)} earlier rounds are in the report."
    curve = _curve(data.metrics, CONFIDENCE)
    return ["## Rounds", *filter(None, [curve]), table(head, rows), note]


def _scores(data: RunData) -> list[str]:
    drawn = [
        f"Round {scores['round'][0]}:\n\n{image}"
        for scores in (data.first_scores, data.last_scores)
        if (image := _histograms(scores)) is not None
    ]
    return ["## Quality scores", *drawn] if drawn else []
