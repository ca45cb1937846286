"""The probability that a student's answer is right, calibrated on the validation answers.

    calibration = calibrate(validation, infer)              None if there are too few answers
    frame = with_confidence(predictions, calibration)
    point = surest_share(calibration, precision=0.95)       which answers keep this precision

The raw confidence (`qcrd_core.student.inference`) ranks answers, but its level is that of the
training questions, which the student has seen. Platt scaling keeps the ranking and corrects the
level with two numbers, so 20 answers cannot overfit it as a step function would.

Limits: the validation questions also chose the round, which flatters the calibration a little. It
holds for questions like those; for others the ranking and the level are both unknown.
"""

import math
from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from data_schemas import Predictions
from qcrd_core.config.base import Section
from qcrd_core.config.method import Infer
from qcrd_core.evaluation import (
    CONFIDENCE,
    Interval,
    accuracy_interval,
    expected_calibration_error,
)
from qcrd_core.ids import derive_seed
from qcrd_core.run.context import RunContext

MIN_OF_EACH = 10
"""Fewest right and fewest wrong validation answers for a slope: ten events per variable, as Peduzzi
et al. (1996) advise for a logistic regression."""
_NUM_POINTS = 20
_NUM_RESAMPLES = 1000
# float32 knows a probability near 1 to seven digits.
_EDGE = 1e-7


class Point(Section):
    """The surest validation answers: those with at least some raw confidence."""

    min_raw_confidence: float = Field(ge=0, le=1)
    """The lowest raw confidence among them."""
    num_answers: int = Field(ge=1)
    """How many they are."""
    num_correct: int = Field(ge=0)
    """How many of them are right."""

    @model_validator(mode="after")
    def _counts_are_ordered(self) -> Self:
        if self.num_correct > self.num_answers:
            msg = "num_correct must be at most num_answers"
            raise ValueError(msg)
        return self

    @property
    def interval(self) -> Interval:
        """Confidence interval of their accuracy."""
        return accuracy_interval(self.num_correct, self.num_answers, CONFIDENCE)


class Calibration(Section):
    """confidence = 1 / (1 + exp(-slope x - intercept)), x from the raw confidence by `scale`."""

    scale: Literal["log_odds", "share"]
    """x is the raw confidence's log odds, or the share of agreeing rationales itself."""
    slope: float = Field(ge=0, le=1e6)
    intercept: float = Field(ge=-1e6, le=1e6)
    num_questions: int = Field(ge=1)
    """Validation questions with a gold answer."""
    points: tuple[Point, ...] = Field(min_length=1, max_length=_NUM_POINTS)
    """The surest 5%, 10%, ... of these questions, the surest first."""

    def confidence(self, raw_confidence: float | None, *, has_answer: bool) -> float | None:
        """Probability that an answer is right.

        Args:
            raw_confidence: From inference, in [0, 1]; None gives None.
            has_answer: Whether an answer could be read; without one the probability is 0.

        Returns:
            Probability in [0, 1].
        """
        if not has_answer:
            return 0.0
        if raw_confidence is None:
            return None
        x = float(_scaled(np.array([raw_confidence]), self.scale)[0])
        return float(_sigmoid(self.slope * x + self.intercept))


def shortage(predictions: pl.DataFrame) -> str | None:
    """Say why answers are too few to calibrate with; None if they are enough.

    Args:
        predictions: Table `predictions` of the validation split.
    """
    known = _usable(predictions)
    num_correct = int(known["is_correct"].sum())
    num_wrong = known.height - num_correct
    if num_correct >= MIN_OF_EACH and known.height >= 2 * MIN_OF_EACH:
        return None
    return (
        f"Confidences need at least {2 * MIN_OF_EACH} validation answers whose raw confidence is "
        f"known, {MIN_OF_EACH} of them right; there are {num_correct} right and {num_wrong} wrong "
        "ones."
    )


def calibrate(predictions: pl.DataFrame, infer: Infer) -> Calibration | None:
    """Fit how often answers of each raw confidence are right.

    Args:
        predictions: Table `predictions` of the validation split.
        infer: Kind of inference that made them.

    Returns:
        The calibration; None if `shortage` has a reason. With fewer than `MIN_OF_EACH` wrong
        answers the slope is 0, because they cannot show where a good student errs: every answer
        gets the share of right ones, and `points` keep the order.

    Source:
        Platt (1999), with his smoothed targets; the slope is at least 0, so the order is kept.
    """
    from scipy.optimize import minimize  # takes half a second to import

    if shortage(predictions) is not None:
        return None
    scale: Literal["log_odds", "share"] = "share" if infer == "vote_k" else "log_odds"
    usable = _usable(predictions)
    x, right = _scaled(usable["raw_confidence"].to_numpy(), scale), usable["is_correct"].to_numpy()
    num_right, num_wrong = int(right.sum()), int((~right).sum())
    # Targets of one more right and one more wrong answer, so that no confidence becomes 0 or 1.
    target = np.where(right, (num_right + 1) / (num_right + 2), 1 / (num_wrong + 2))
    # In units of their spread; answers that all have one raw confidence get a slope of 0.
    centre, width = float(x.mean()), float(x.std()) if float(x.std()) > _EDGE else math.inf
    unit = (x - centre) / width

    def loss(of: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = of[0] * unit + of[1]
        off = _sigmoid(z) - target
        value = float((np.logaddexp(0, z) - target * z).mean())
        return value, np.array([(off * unit).mean(), off.mean()])

    start, steepest = (1.0, None) if num_wrong >= MIN_OF_EACH else (0.0, 0.0)
    found = minimize(loss, [start, 0.0], jac=True, bounds=[(0, steepest), (None, None)])
    slope = float(found.x[0]) / width
    return Calibration(
        scale=scale,
        slope=slope,
        intercept=float(found.x[1]) - slope * centre,
        num_questions=predictions["is_correct"].count(),
        points=_points(predictions),
    )


def validated_calibration(context: RunContext, round_: int) -> Calibration | None:
    """Calibrate a round's student on its validation answers; None if they are too few."""
    path = context.paths.predictions("validation", round_)
    validation = context.store.read_table(path, Predictions)
    return calibrate(validation, context.config.evaluation.infer)


def with_confidence(predictions: pl.DataFrame, calibration: Calibration | None) -> pl.DataFrame:
    """Fill column `confidence` of table `predictions`; null without a calibration."""
    rows = predictions.select("raw_confidence", "answer").iter_rows()
    values = [
        None if calibration is None else calibration.confidence(raw, has_answer=answer is not None)
        for raw, answer in rows
    ]
    return predictions.with_columns(pl.Series("confidence", values, pl.Float64))


def surest_share(calibration: Calibration, *, precision: float) -> Point | None:
    """Find the most answers that keep a precision, by the lower end of its interval.

    The shares are tried from small to large and the search ends at the first that fails, so that
    trying several does not make a lucky one likely.

    Args:
        calibration: With the validation answers by raw confidence.
        precision: Wanted share of right answers, in (0, 1).

    Returns:
        The answers; None if validation cannot support the precision.

    Source:
        Fixed-sequence testing, as in Angelopoulos et al., Learn then Test (arXiv 2110.01052).
    """
    chosen = None
    for point in calibration.points:
        # Even if they were all right, so few answers could not show the precision.
        if accuracy_interval(point.num_answers, point.num_answers, CONFIDENCE).low < precision:
            continue
        if point.interval.low < precision:
            break
        chosen = point
    return chosen


def risk_coverage(predictions: pl.DataFrame) -> pl.DataFrame:
    """Share of wrong answers among the surest ones, for every share of answers.

    Args:
        predictions: Table `predictions`. Rows without a gold answer are left out; unknown
            confidences are the least sure.

    Returns:
        coverage in (0, 1], risk in [0, 1], by coverage; one row per distinct confidence.

    Source:
        El-Yaniv and Wiener (2010).
    """
    known = predictions.drop_nulls("is_correct").with_columns(pl.col("confidence").fill_null(-1.0))
    grouped = known.group_by("confidence").agg(pl.len(), wrong=(~pl.col("is_correct")).sum())
    ordered = grouped.sort("confidence", descending=True)
    count = pl.col("len").cum_sum()
    return ordered.select(
        coverage=count / pl.col("len").sum(), risk=pl.col("wrong").cum_sum() / count
    )


def measured(predictions: pl.DataFrame) -> pl.DataFrame:
    """Rows that can show how good confidences are: with an answer, a gold answer, a confidence."""
    return predictions.drop_nulls(["answer", "is_correct", "confidence"])


def calibration_error(predictions: pl.DataFrame) -> tuple[float, Interval] | None:
    """Expected calibration error of confidences, with its interval.

    Args:
        predictions: Table `predictions`. Only rows that have an answer count, because a confidence
            of 0 without one is right by definition.

    Returns:
        ECE over ten bins and its bootstrap interval; None if no row has a confidence.

    Source:
        Naeini et al. (2015). The percentile interval is wide upwards, because noise within a bin
        adds to ECE.
    """
    rows = measured(predictions)
    scores, right = rows["confidence"].to_numpy(), rows["is_correct"].to_numpy()
    value = expected_calibration_error(scores, right)
    if value is None:
        return None
    source = np.random.default_rng(derive_seed("calibration error"))
    draws = (source.integers(rows.height, size=rows.height) for _ in range(_NUM_RESAMPLES))
    values = [expected_calibration_error(scores[draw], right[draw]) for draw in draws]
    low, high = np.quantile(np.array(values), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return value, Interval(float(low), float(high))


def _usable(predictions: pl.DataFrame) -> pl.DataFrame:
    return predictions.drop_nulls(["answer", "is_correct", "raw_confidence"])


def _points(predictions: pl.DataFrame) -> tuple[Point, ...]:
    """The surest 5%, 10%, ... of all questions, those of equal confidence together."""
    total = predictions["is_correct"].count()
    ordered = _usable(predictions).sort("raw_confidence", descending=True)
    scores, right = ordered["raw_confidence"].to_numpy(), ordered["is_correct"].to_numpy()
    wanted = [math.ceil(total * share / _NUM_POINTS) for share in range(1, _NUM_POINTS + 1)]
    levels = [float(scores[min(count, len(scores)) - 1]) for count in wanted]
    return tuple(_point(scores, right, level) for level in dict.fromkeys(levels))


def _point(scores: NDArray[np.float64], right: NDArray[np.bool_], level: float) -> Point:
    among = scores >= level
    return Point(
        min_raw_confidence=level,
        num_answers=int(among.sum()),
        num_correct=int(right[among].sum()),
    )


def _scaled(raw: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    if scale == "share":
        return raw
    inside = np.clip(raw, _EDGE, 1 - _EDGE)
    logs: NDArray[np.float64] = np.log(inside) - np.log1p(-inside)
    return logs


def _sigmoid(z: Sequence[float] | NDArray[np.float64] | float) -> NDArray[np.float64]:
    # tanh does not overflow.
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(z)))
