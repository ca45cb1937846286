"""Accuracy intervals, predictions, the best round, AUC and calibration against hand numbers."""

import random

import polars as pl
import pytest

from data_schemas import Metrics
from qcrd_core.errors import DataError
from qcrd_core.evaluation import (
    accuracy_interval,
    auc,
    best_round,
    expected_calibration_error,
    field_accuracy,
    label_f1,
    score_predictions,
)
from tests.support.tables import make_questions


def make_metrics(rows):
    names = ["stage", "round", "global_step", "name", "value"]
    frame = pl.DataFrame(rows, schema=names, orient="row")
    return Metrics.validate(frame, cast=True)


@pytest.mark.parametrize(
    ("num_correct", "num_total", "low", "high"),
    [
        # Worked out by hand with z = 1.959964; 8 of 10 is the textbook case.
        (8, 10, 0.4901625, 0.9433178),
        (0, 10, 0.0, 0.2775328),
        (10, 10, 0.7224672, 1.0),
        (200, 400, 0.4512336, 0.5487664),
    ],
)
def test_accuracy_interval_with_known_counts_is_wilson(num_correct, num_total, low, high):
    interval = accuracy_interval(num_correct, num_total, 0.95)
    assert interval.low == pytest.approx(low, abs=1e-6)
    assert interval.high == pytest.approx(high, abs=1e-6)


def test_accuracy_interval_with_more_confidence_is_wider():
    narrow, wide = accuracy_interval(8, 10, 0.8), accuracy_interval(8, 10, 0.99)
    assert wide.low < narrow.low < 0.8 < narrow.high < wide.high


@pytest.mark.parametrize(("num_correct", "num_total"), [(0, 0), (3, 2), (-1, 2)])
def test_accuracy_interval_with_impossible_counts_is_refused(num_correct, num_total):
    with pytest.raises(DataError, match=f"got {num_correct} of {num_total}"):
        accuracy_interval(num_correct, num_total, 0.95)


def test_score_predictions_compares_with_gold_in_the_questions_order():
    questions = make_questions(
        [
            {"question_id": "b", "gold_answer": "42", "split": "test"},
            {"question_id": "a", "gold_answer": "7", "split": "test"},
            {"question_id": "c", "gold_answer": "7", "split": "test"},
            {"question_id": "d", "split": "test"},
        ]
    )
    texts = {"a": "seven-ish", "b": "( 84.0 / 2.0 )", "c": "8", "d": "8"}
    answers = {"a": None, "b": "42", "c": "8", "d": "8"}
    frame = score_predictions(texts, answers, questions, round_=3)
    assert frame["text"].to_list() == ["( 84.0 / 2.0 )", "seven-ish", "8", "8"]
    assert frame["question_id"].to_list() == ["b", "a", "c", "d"]
    assert frame["answer"].to_list() == ["42", None, "8", "8"]
    assert frame["is_correct"].to_list() == [True, False, False, None]
    assert frame["round"].unique().to_list() == [3]


@pytest.mark.parametrize("texts", [{}, {"a": "1", "z": "2"}], ids=["missing", "unknown"])
def test_score_predictions_with_other_ids_is_refused(texts):
    questions = make_questions([{"question_id": "a"}])
    with pytest.raises(DataError, match="got 1 ids that are only in one of the two"):
        score_predictions(texts, dict.fromkeys(texts), questions, round_=0)


def test_best_round_with_equal_accuracies_is_the_earliest():
    rows = [
        ("validation", 0, 10, "accuracy", 0.2),
        ("validation", 1, 20, "accuracy", 0.5),
        ("validation", 2, 30, "accuracy", 0.5),
        ("validation", 2, 30, "num_questions", 100.0),
        ("validation", 3, 40, "accuracy", None),
        ("test", 0, 40, "accuracy", 0.9),
    ]
    assert best_round(make_metrics(rows)) == 1


def test_best_round_without_validation_is_refused():
    with pytest.raises(DataError, match="got no validation accuracy"):
        best_round(make_metrics([("test", 0, 1, "accuracy", 0.5)]))


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([0.1, 0.4, 0.35, 0.8], [False, False, True, True], 0.75),
        ([0.9, 0.1], [True, False], 1.0),
        ([0.1, 0.9], [True, False], 0.0),
        ([0.5, 0.5, 0.5], [True, False, True], 0.5),
        ([0.5, 0.5, 0.9, 0.1], [True, False, True, False], 0.875),
    ],
    ids=["textbook", "perfect", "inverted", "flat", "one-tie"],
)
def test_auc_with_hand_counted_pairs(scores, labels, expected):
    assert auc(scores, labels) == pytest.approx(expected)


@pytest.mark.parametrize("labels", [[], [True, True], [False]])
def test_auc_with_one_class_is_none(labels):
    assert auc([0.5] * len(labels), labels) is None


def test_auc_with_random_ties_equals_pair_counting():
    generator = random.Random(0)
    scores = [generator.randint(0, 5) / 5 for _ in range(120)]
    labels = [generator.random() < 0.3 for _ in scores]
    pairs = [
        (p > n) + 0.5 * (p == n)
        for p, is_p in zip(scores, labels, strict=True)
        if is_p
        for n, is_n in zip(scores, labels, strict=True)
        if not is_n
    ]
    assert auc(scores, labels) == pytest.approx(sum(pairs) / len(pairs))


def test_calibration_error_with_two_bins_weighs_by_rows():
    # Bin [0.2, 0.3): scores 0.25 x 3, one positive: |0.25 - 1/3| = 1/12 on 3 rows.
    # Bin [0.9, 1.0]: scores 0.95 and 1.0, both positive: |0.975 - 1| = 0.025 on 2 rows.
    error = expected_calibration_error(
        [0.25, 0.25, 0.25, 0.95, 1.0], [True, False, False, True, True]
    )
    assert error == pytest.approx((3 / 12 + 2 * 0.025) / 5)


def test_calibration_error_without_rows_is_none():
    assert expected_calibration_error([], []) is None


@pytest.mark.parametrize("measure", [auc, expected_calibration_error])
def test_scores_with_nan_are_refused(measure):
    with pytest.raises(DataError, match="1 not finite"):
        measure([float("nan"), 0.5], [True, False])


def _predictions(*rows):
    return pl.DataFrame(rows, schema={"answer": pl.String, "gold_answer": pl.String}, orient="row")


def test_label_f1_counts_pairs_of_row_and_label():
    frame = _predictions(("a, b", "a"), ("none", "b"), (None, "a, c"), ("a", None))
    # a: TP 1, FP 0, FN 1; b: TP 0, FP 1, FN 1; c: TP 0, FN 1; d never occurs.
    # Micro: 2 / (2 + 1 + 3); macro: (2 / 3 + 0 + 0) / 3.
    found = label_f1(frame, ("a", "b", "c", "d"))
    assert found == {"micro_f1": pytest.approx(1 / 3), "macro_f1": pytest.approx(2 / 9)}


def test_label_f1_without_any_label_is_not_measured():
    assert label_f1(_predictions(("none", "none"), ("a", None)), ("a",)) == {}


def test_field_accuracy_counts_each_field_of_the_gold_objects():
    frame = _predictions(
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 3}'),
        (None, '{"a": 1}'),
        ("[1]", '{"a": 1}'),
        ('{"a": 1}', None),
        ("[1]", "[1]"),
        ("{}", '{"c": null}'),
    )
    assert field_accuracy(frame) == {
        "accuracy_of_a": pytest.approx(1 / 3),
        "accuracy_of_b": 0.0,
        "accuracy_of_c": 0.0,
    }
