"""The first page of a run: how good its student is, what was voted on, and what went wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup

from explorer.charts import Bar, bar_chart
from explorer.data import Explorer
from explorer.pages import newest_answers, page_href, question_href
from qcrd_core.errors import QcrdError
from qcrd_core.evaluation import CONFIDENCE
from qcrd_core.inspect.view import View
from qcrd_core.registry.registry import Version, find_version, read_champion
from qcrd_core.report import summary as numbers
from qcrd_core.report.charts import loss_chart, validation_chart
from qcrd_core.run.records import Result
from qcrd_core.store.parts import collect

_MOST_CLASSES = 20
"""With more different right answers than this, an answer is no class."""
_BIN = 0.05
_SHOWN_WRONG = 6


@dataclass(frozen=True)
class Progress:
    """How far a run is that is not complete."""

    num_sampled: int
    num_wanted: int | None
    """None for imported rationales."""
    num_rounds_done: int
    num_rounds: int | None


def run_page(explorer: Explorer, view: View) -> dict[str, Any]:
    """Numbers and plots of a run."""
    found, metrics = explorer.summary(view), view.metrics()
    test = collect(newest_answers(view, "test"), view.name)
    result, loss = None, view.settings.get("loss", {})
    if view.store.exists(view.paths.result):
        result = view.store.read_json(view.paths.result, Result)
    return {
        "summary": found,
        "vote": found.vote,
        "counts": found.counts.sort("source", "round", "status").to_dicts(),
        "lengths": found.lengths.to_dicts(),
        "failures": found.failures.head(10).to_dicts(),
        "result": result,
        "student": numbers.student_accuracy(test),
        "champion": _champion(view),
        "progress": None if result is not None else _progress(view, found.counts, metrics),
        "warnings": numbers.warnings(metrics, test, has_negatives=bool(loss.get("beta", True))),
        "validation": validation_chart(metrics, CONFIDENCE),
        "losses": loss_chart(metrics),
        "votes": _vote_chart(view, explorer.vote_counts(view)),
        "scores": [_score_chart(view, part) for part in _by_round(explorer.scores(view))],
        "slices": explorer.slices(view).to_dicts(),
        "classes": _classes(test),
        "parts": numbers.scores_of_parts(metrics),
        "wrong": _wrong(view, test),
        "has_report": view.store.exists(view.paths.report),
        "settings": view.settings,
    }


def _champion(view: View) -> Version | str | None:
    """The champion among the models of the run's name, or what is wrong with it."""
    model = str(view.run_id).rpartition("-")[0]
    try:
        chosen = read_champion(view.store, model).version
        return None if chosen is None else find_version(view.store, model, chosen)
    except QcrdError as error:  # a damaged model hides no run
        return str(error)


def _progress(view: View, counts: pl.DataFrame, metrics: pl.DataFrame) -> Progress:
    training, numbers = view.settings.get("training", {}), view.num_samples
    train = collect(view.questions().filter(pl.col("split") == "train").select(pl.len()), view.name)
    validated = metrics.filter(pl.col("stage") == "validation")["round"].n_unique()
    return Progress(
        num_sampled=int(counts.filter(pl.col("source") != "student")["num_rows"].sum()),
        num_wanted=None if None in numbers else sum(filter(None, numbers)) * int(train.item()),
        num_rounds_done=validated,
        num_rounds=training.get("num_rounds"),
    )


def _classes(test: pl.DataFrame) -> list[dict[str, Any]]:
    """Test answers by right answer, worst first; empty if the right answers are no classes.

    Each class has its right answer, its questions, the share answered rightly, and the wrong answer
    given most often.
    """
    known = test.drop_nulls("gold_answer")
    if not 2 <= known["gold_answer"].n_unique() <= _MOST_CLASSES:
        return []
    wrong = known.filter(~pl.col("is_correct")).with_columns(
        pl.col("answer").fill_null("no answer")
    )
    usual = wrong.group_by("gold_answer").agg(
        pl.col("answer").mode().sort().first().alias("usual_error")
    )
    counted = known.group_by("gold_answer").agg(
        num_questions=pl.len(), share=pl.col("is_correct").mean()
    )
    joined = counted.join(usual, on="gold_answer", how="left")
    return joined.sort("share", "gold_answer").to_dicts()


def _wrong(view: View, test: pl.DataFrame) -> list[dict[str, Any]]:
    """Some test questions with a wrong answer, spread over all of them."""
    wrong = test.filter(~pl.col("is_correct")).sort("question_id")
    some = wrong.gather_every(max(1, wrong.height // _SHOWN_WRONG)).head(_SHOWN_WRONG)
    asked = view.questions().select("question_id", "question")
    joined = collect(some.lazy().join(asked, on="question_id", how="left"), view.name)
    rows = joined.sort("question_id").to_dicts()
    return [{**row, "href": question_href(view, row["question_id"], {}, None)} for row in rows]


def _vote_chart(view: View, counts: pl.DataFrame) -> Markup | None:
    """Questions by the number of votes for their majority answer."""
    bars = []
    for row in counts.iter_rows(named=True):
        votes = row["vote_count"]
        right = row["num_correct"] / row["num_with_gold"] if row["num_with_gold"] else None
        label = "" if right is None else f"{right:.0%}"
        title = f"{votes} votes: {row['num_questions']:,} questions, {label or '-'} right"
        href = page_href(view, "rows", {"where": f"vote_count = {votes}"})
        bars.append(
            Bar(votes - 0.4, votes + 0.4, row["num_questions"], title, label=label, href=href)
        )
    if not bars:
        return None
    most = max(counts["vote_count"].to_list())
    marks = {float(votes): str(votes) for votes in range(most + 1)}
    label = "votes for the majority answer"
    return bar_chart(bars, label, "questions", domain=(-0.5, most + 0.5), marks=marks)


def _score_chart(view: View, part: pl.DataFrame) -> tuple[int, Markup | None]:
    """Quality scores of one round: beside each other for positive and negative rationales."""
    round_ = int(part["round"][0])
    summed = part.group_by("polarity", "low", maintain_order=True).agg(pl.col("count").sum())
    bars = []
    for row in summed.iter_rows(named=True):
        low, is_positive = row["low"], row["polarity"] == "positive"
        where = (
            f"polarity = '{row['polarity']}' AND quality_score >= {low:.2f} "
            f"AND quality_score < {low + _BIN:.2f}"
        )
        if low > 1 - 1.5 * _BIN:
            where = f"polarity = '{row['polarity']}' AND quality_score >= {low:.2f}"
        title = f"{row['polarity']}, {low:.2f} to {low + _BIN:.2f}: {row['count']:,} rationales"
        start = low if is_positive else low + _BIN / 2
        bars.append(
            Bar(
                start,
                start + _BIN / 2,
                row["count"],
                title,
                href=page_href(view, "rows", {"where": where}),
                tone=0 if is_positive else 1,
            )
        )
    return round_, bar_chart(bars, "quality score", "rationales")


def _by_round(bins: pl.DataFrame) -> Sequence[pl.DataFrame]:
    """Bins of the first and the last round."""
    rounds = bins["round"].unique().sort().to_list()
    return [
        bins.filter(pl.col("round") == number) for number in dict.fromkeys(rounds[:1] + rounds[-1:])
    ]
