"""The charts of a run, and the numbers they show."""

import math

import polars as pl
from markupsafe import Markup

from qcrd_core.evaluation import accuracy_interval, auc
from qcrd_core.report.data import RunData
from qcrd_core.report.plots import (
    Axis,
    Group,
    Line,
    Whisker,
    histogram_rows,
    line_chart,
    share_rows,
)
from qcrd_core.report.summary import Accuracy, series
from qcrd_core.report.text import visible
from qcrd_core.student.confidence import measured, risk_coverage

_POINTS = 120
_BINS = 10
_WHOLE = (0.0, 0.25, 0.5, 0.75, 1.0)
_POSITIVE_TONE, _NEGATIVE_TONE = 0, 1


def validation_chart(metrics: pl.DataFrame, confidence: float) -> Markup | None:
    """Validation accuracy by round, with its interval; None without validation."""
    accuracy = series(metrics, "validation", "accuracy")
    if accuracy.is_empty():
        return None
    counts = series(metrics, "validation", "num_questions").select("round", total="value")
    rows = accuracy.join(counts, on="round", how="left").sort("round")
    band = []
    if rows["total"].null_count() == 0:
        for share, total in rows.select("value", "total").iter_rows():
            interval = accuracy_interval(round(share * total), int(total), confidence)
            band.append((interval.low, interval.high))
    line = Line("validation", rows["round"].to_list(), rows["value"].to_list(), 0, band)
    y_axis = Axis("accuracy on validation", low=0, is_share=True)
    return line_chart([line], Axis("round"), y_axis)


def loss_chart(metrics: pl.DataFrame) -> Markup | None:
    """Terms of the training loss by step; None before training."""
    names = {
        "loss_label_nats": "label",
        "loss_positive_nats": "positive",
        "loss_negative_nats": "negative",
    }
    lines = []
    for tone, (name, label) in enumerate(names.items()):
        points = _smoothed(series(metrics, "train", name))
        if not points.is_empty():
            lines.append(_line(label, points, (2, _POSITIVE_TONE, _NEGATIVE_TONE)[tone]))
    low = None if any(min(line.y) < 0 for line in lines) else 0
    return line_chart(lines, Axis("optimiser step"), Axis("nats", low=low)) if lines else None


def hinge_chart(data: RunData) -> Markup | None:
    """Share of questions with a negative inside the margin, by step; None before training."""
    points = _smoothed(series(data.metrics, "train", "active_hinge_share"))
    if points.is_empty():
        return None
    y_axis = Axis("share of questions with an active hinge", low=0, high=1, is_share=True)
    return line_chart([_line("active", points, _NEGATIVE_TONE)], Axis("optimiser step"), y_axis)


def discriminator_chart(data: RunData) -> Markup | None:
    """AUC and calibration error of the discriminator by round; None without a discriminator."""
    names = {"auc_polarity": "AUC, polarity", "auc_correct": "AUC, right", "ece": "ECE"}
    lines = []
    for tone, (name, label) in enumerate(names.items()):
        points = series(data.metrics, "discriminator", name)
        points = points.unique("round", keep="last").sort("round")
        if not points.is_empty():
            lines.append(Line(label, points["round"].to_list(), points["value"].to_list(), tone))
    if not lines:
        return None
    references = [0.5] if any(line.name != "ECE" for line in lines) else []
    axis = Axis("AUC and ECE on held-out rationales", low=0, high=1)
    return line_chart(lines, Axis("round"), axis, references=references)


def score_chart(scores: pl.DataFrame) -> Markup | None:
    """Quality scores of one round by polarity and source; None without scores.

    Each negative group notes the AUC with which its scores separate from those of the positives.
    """
    scores = scores.drop_nulls("quality_score")
    if scores.is_empty():
        return None
    positive = scores.filter(pl.col("polarity") == "positive")["quality_score"].to_list()
    groups = []
    keys = ["polarity", "source"]
    for key, part in sorted(scores.partition_by(keys, as_dict=True).items(), reverse=True):
        polarity, source = str(key[0]), str(key[1])
        values = part["quality_score"].to_list()
        note = f"n = {len(values):,}, mean {sum(values) / len(values):.2f}"
        is_negative = polarity == "negative"
        if is_negative and positive:
            labels = [True] * len(positive) + [False] * len(values)
            note += f", AUC {auc([*positive, *values], labels):.2f}"
        tone = _NEGATIVE_TONE if is_negative else _POSITIVE_TONE
        groups.append(Group(f"{polarity}, {source}", note, values, tone))
    return histogram_rows(groups, "quality score")


def reliability_chart(predictions: pl.DataFrame, confidence: float) -> Markup | None:
    """Share of right answers by their confidence, in ten bins; None without confidences."""
    rows = measured(predictions)
    if rows.is_empty():
        return None
    number = (pl.col("confidence") * _BINS).floor().clip(upper_bound=_BINS - 1)
    bins = rows.group_by(number.alias("bin")).agg(
        pl.len(), pl.col("confidence").mean(), right=pl.col("is_correct").sum()
    )
    bins = bins.sort("bin")
    x = bins["confidence"].to_list()
    y = (bins["right"] / bins["len"]).to_list()
    intervals = [
        accuracy_interval(right, total, confidence)
        for right, total in bins.select("right", "len").iter_rows()
    ]
    lines = [
        Line("ideal", (0.0, 1.0), (0.0, 1.0), 2, is_dashed=True),
        Line("measured", x, y, _POSITIVE_TONE, [(one.low, one.high) for one in intervals]),
    ]
    axes = (
        Axis(label, low=0, high=1, is_share=True, marks=_WHOLE)
        for label in ("confidence", "right answers")
    )
    return line_chart(lines, *axes)


def risk_chart(predictions: pl.DataFrame) -> Markup | None:
    """Share of wrong answers among the surest, by their share; None without confidences."""
    if measured(predictions).is_empty():
        return None
    curve = risk_coverage(predictions)
    line = Line("risk", curve["coverage"].to_list(), curve["risk"].to_list(), _NEGATIVE_TONE)
    x_axis = Axis(
        "share of test questions, the surest answers first",
        low=0,
        high=1,
        is_share=True,
        marks=_WHOLE,
    )
    return line_chart([line], x_axis, Axis("wrong answers among them", low=0, is_share=True))


def template_chart(slices: list[Accuracy]) -> Markup | None:
    """Test accuracy by template; None without templates."""
    rows = [
        Whisker(
            name=visible(part.label),
            note=f"{part.share:.0%} of {part.num_questions}",
            share=part.share,
            interval=(part.interval.low, part.interval.high),
        )
        for part in slices
    ]
    return share_rows(rows, "accuracy on test", "template") if rows else None


def _smoothed(points: pl.DataFrame) -> pl.DataFrame:
    """Average neighbouring steps, so that a chart has at most _POINTS points."""
    width = max(1, math.ceil(points.height / _POINTS))
    block = pl.int_range(pl.len()) // width
    return points.group_by(block.alias("block"), maintain_order=True).agg(
        pl.col("global_step").last(), pl.col("value").mean()
    )


def _line(name: str, points: pl.DataFrame, tone: int) -> Line:
    return Line(name, points["global_step"].to_list(), points["value"].to_list(), tone)
