"""Warnings that a reader of a run must not miss."""

import polars as pl
import pytest

from data_schemas import Metrics
from qcrd_core.report.summary import warnings

NO_METRICS = Metrics.create_empty()


def _test(*, num_right, golds):
    return pl.DataFrame(
        {
            "question_id": [str(number) for number in range(len(golds))],
            "gold_answer": golds,
            "is_correct": [number < num_right for number in range(len(golds))],
        }
    )


def test_student_that_is_no_better_than_the_most_frequent_answer_is_named():
    golds = ["bug"] * 60 + ["billing"] * 40

    (said,) = warnings(NO_METRICS, _test(num_right=60, golds=golds))

    assert said.startswith(
        "The student learnt next to nothing: it is right in 60.0% of the test questions, the most "
        "frequent answer alone in 60.0%. Train longer (training.num_rounds, "
    )
    assert warnings(NO_METRICS, _test(num_right=61, golds=golds)) == []


def test_task_with_one_answer_is_no_fault_of_the_student():
    assert warnings(NO_METRICS, _test(num_right=60, golds=["bug"] * 60)) == []


def test_few_test_questions_are_named():
    golds = [str(number) for number in range(49)]

    (said,) = warnings(NO_METRICS, _test(num_right=30, golds=golds))

    assert said.startswith("49 test questions tell little: with so few, only differences beyond")


@pytest.mark.parametrize(("has_negatives", "count"), [(True, 1), (False, 0)])
def test_run_without_negatives_needs_none_inside_the_margin(has_negatives, count):
    row = {
        "run_id": "r",
        "stage": "train",
        "round": 0,
        "global_step": 1,
        "name": "active_hinge_share",
        "value": 0.0,
    }
    metrics = pl.DataFrame([row])

    assert (
        len(warnings(metrics, _test(num_right=0, golds=[]), has_negatives=has_negatives)) == count
    )
