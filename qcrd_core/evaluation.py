"""Measures of a student, a teacher or a discriminator.

Accuracy with its confidence interval, predictions from a student's texts, the best round, and how
well a score separates good from bad.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_schemas.predictions import Predictions
from qcrd_core.errors import DataError

CONFIDENCE = 0.95
"""Level of the intervals in reports: the custom, so that numbers of several runs compare."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval: in [0, 1] for a share, in [-1, 1] for a difference of shares."""

    low: float
    high: float


def accuracy_interval(num_correct: int, num_total: int, confidence: float) -> Interval:
    """Wilson score interval of an accuracy: valid also for small sets, 0% and 100%.

    Args:
        num_correct: Correct answers.
        num_total: Questions, at least 1.
        confidence: Level in (0, 1), for example 0.95.

    Returns:
        The interval.

    Raises:
        DataError: If there is no question, or more correct answers than questions.

    Source:
        Wilson (1927), without continuity correction.
    """
    if not 0 <= num_correct <= num_total or num_total == 0:
        msg = (
            "An accuracy must count from 0 to all of at least one question; got "
            f"{num_correct} of {num_total}. Evaluate on a split that has questions."
        )
        raise DataError(msg)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = num_correct / num_total
    scale = 1 + z * z / num_total
    centre = (share + z * z / (2 * num_total)) / scale
    variance = share * (1 - share) / num_total + z * z / (4 * num_total * num_total)
    half = z * variance**0.5 / scale
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half))


def mcnemar_p_value(
    num_gained: int, num_lost: int, *, alternative: Literal["greater", "two-sided"]
) -> float:
    """Exact McNemar test: probability of so large a difference if neither student is better.

    Args:
        num_gained: Questions that only the new student answers correctly.
        num_lost: Questions that only the old student answers correctly.
        alternative: `greater` tests for a gain only, `two-sided` for a difference.

    Returns:
        For X ~ Binomial(num_gained + num_lost, 1/2): P(X >= num_gained) if `greater`, or the
        probability of all outcomes no likelier than num_gained if `two-sided`. 1 if the students
        never differ.

    Source:
        McNemar (1947), with the binomial distribution in place of chi-square.
    """
    from scipy.stats import binomtest  # takes a second to import

    num_differing = num_gained + num_lost
    if num_differing == 0:
        return 1.0
    return float(binomtest(num_gained, num_differing, alternative=alternative).pvalue)


def score_predictions(
    texts: Mapping[str, str],
    answers: Mapping[str, str | None],
    questions: pl.DataFrame,
    *,
    round_: int,
    raw_confidences: Mapping[str, float | None] | None = None,
) -> pl.DataFrame:
    """Compare a student's answers with the gold answers.

    Args:
        texts: Texts of the student by question_id, one per question.
        answers: Canonical answers found in the texts, by question_id; None if none was found.
        questions: Rows of table `questions`, all that were asked.
        round_: Round whose checkpoint answered.
        raw_confidences: By question_id; None if none is known.

    Returns:
        Table `predictions`, in the order of `questions`, without calibrated confidences.

    Raises:
        DataError: If a question has no text, or a text has no question.
    """
    asked = questions["question_id"].to_list()
    if texts.keys() != set(asked):
        differing = sorted(texts.keys() ^ set(asked))
        msg = (
            f"Predictions must cover the questions exactly; got {len(differing)} ids that are only "
            f"in one of the two (first: {differing[0]}). Evaluate this round again."
        )
        raise DataError(msg)
    frame = questions.select(
        "question_id",
        pl.lit(round_, pl.Int32).alias("round"),
        "split",
        pl.Series("text", [texts[question_id] for question_id in asked], pl.String),
        pl.Series("answer", [answers[question_id] for question_id in asked], pl.String),
        "gold_answer",
        pl.Series(
            "raw_confidence", [(raw_confidences or {}).get(name) for name in asked], pl.Float64
        ),
        pl.lit(None, pl.Float64).alias("confidence"),
    )
    correct = pl.col("answer").eq_missing(pl.col("gold_answer"))
    has_gold = pl.col("gold_answer").is_not_null()
    return Predictions.validate(
        frame.with_columns(is_correct=pl.when(has_gold).then(correct)), cast=True
    )


def scores_of_parts(answers: pl.DataFrame, kind: str, labels: Sequence[str]) -> dict[str, float]:
    """Measure answers that have parts, beside the accuracy of the whole.

    Args:
        answers: Columns answer and gold_answer.
        kind: `answer.kind` of the data set.
        labels: Its `answer.labels`.

    Returns:
        The numbers of `label_f1` for kind labels, of `field_accuracy` for json, else none.
    """
    if kind == "labels":
        return label_f1(answers, labels)
    return field_accuracy(answers) if kind == "json" else {}


def label_f1(predictions: pl.DataFrame, labels: Sequence[str]) -> dict[str, float]:
    """F1 of answers that are sets of labels (answer.kind labels).

    Args:
        predictions: Columns answer and gold_answer, as table `predictions` has them. Rows without a
            gold answer are left out; a row without an answer has no label.
        labels: All labels of the data set.

    Returns:
        `micro_f1` over all pairs of row and label, and `macro_f1`, the mean over the labels that
        occur among answers or gold answers. Empty without such a label.

    Source:
        F1 = 2 TP / (2 TP + FP + FN).
    """
    rows = predictions.drop_nulls("gold_answer").select("answer", "gold_answer").iter_rows()
    pairs = [(set((answer or "").split(", ")), set(gold.split(", "))) for answer, gold in rows]
    # Per label: 2 TP, and 2 TP + FP + FN, which is how often it is in the answer plus in the gold.
    counts = [
        (
            2 * sum(label in answer and label in gold for answer, gold in pairs),
            sum((label in answer) + (label in gold) for answer, gold in pairs),
        )
        for label in labels
    ]
    shares = [twice / total for twice, total in counts if total]
    if not shares:
        return {}
    micro = sum(twice for twice, _ in counts) / sum(total for _, total in counts)
    return {"micro_f1": micro, "macro_f1": sum(shares) / len(shares)}


def field_accuracy(predictions: pl.DataFrame) -> dict[str, float]:
    """Accuracy of each field of answers that are JSON objects (answer.kind json).

    Args:
        predictions: Columns answer and gold_answer, as table `predictions` has them. Rows without a
            gold answer are left out; without an answer, all of a row's fields are wrong.

    Returns:
        `accuracy_of_<field>`: the share of the gold objects with this field whose answer has the
        same value in it. Sorted by field; empty if no gold answer is an object.
    """
    right: dict[str, list[bool]] = {}
    rows = predictions.drop_nulls("gold_answer").select("answer", "gold_answer").iter_rows()
    for answer, gold_answer in rows:
        said, gold = json.loads(answer or "null"), json.loads(gold_answer)
        for field, value in gold.items() if isinstance(gold, dict) else ():
            is_same = isinstance(said, dict) and field in said and said[field] == value
            right.setdefault(field, []).append(is_same)
    return {f"accuracy_of_{field}": sum(of) / len(of) for field, of in sorted(right.items())}


def best_round(metrics: pl.DataFrame) -> int:
    """Find the round with the highest validation accuracy; the earliest one if several are equal.

    Args:
        metrics: Table `metrics`.

    Returns:
        The round.

    Raises:
        DataError: If no validation accuracy was measured.
    """
    measured = metrics.filter(
        pl.col("stage") == "validation",
        pl.col("name") == "accuracy",
        pl.col("value").is_not_null(),
    )
    if measured.is_empty():
        msg = (
            "The best round must be chosen by validation accuracy; got no validation accuracy. "
            "Give the data set validation questions with gold answers."
        )
        raise DataError(msg)
    best = measured.sort("value", "round", descending=[True, False]).row(0, named=True)
    return int(best["round"])


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """Area under the ROC curve: how often a positive scores above a negative; ties count half.

    Args:
        scores: Any real numbers, [n].
        labels: True for a positive, [n].

    Returns:
        Share in [0, 1]; 0.5 separates nothing. None if one class is empty.

    Source:
        Mann-Whitney rank statistic with mid-ranks.
    """
    values, truth = _arrays(scores, labels)
    num_positive = int(truth.sum())
    num_negative = truth.size - num_positive
    if num_positive == 0 or num_negative == 0:
        return None
    rank_sum = float(pl.Series(values).rank("average").to_numpy()[truth].sum())
    wins = rank_sum - num_positive * (num_positive + 1) / 2
    return wins / (num_positive * num_negative)


def expected_calibration_error(
    scores: Sequence[float] | NDArray[np.float64],
    labels: Sequence[bool] | NDArray[np.bool_],
    num_bins: int = 10,
) -> float | None:
    """Mean distance between the scores and the share of positives, over bins of equal width.

    Args:
        scores: Probabilities in [0, 1], [n].
        labels: True for a positive, [n].
        num_bins: Bins of equal width.

    Returns:
        Error in [0, 1], with each bin weighted by its rows; None if there are no rows.

    Source:
        Naeini et al. (2015). Bins include their lower end; the last bin includes both ends.
    """
    values, truth = _arrays(scores, labels)
    if values.size == 0:
        return None
    bins = np.minimum((values * num_bins).astype(np.int64), num_bins - 1)
    gaps = np.bincount(bins, weights=truth - values, minlength=num_bins)
    return float(np.abs(gaps).sum() / values.size)


def _arrays(
    scores: Sequence[float] | NDArray[np.float64], labels: Sequence[bool] | NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, truth = np.asarray(scores, np.float64), np.asarray(labels, np.bool_)
    if values.shape != truth.shape or not np.isfinite(values).all():
        msg = (
            f"Scores must be finite, one per label; got {values.size} scores "
            f"({int((~np.isfinite(values)).sum())} not finite) and {truth.size} labels."
        )
        raise DataError(msg)
    return values, truth
