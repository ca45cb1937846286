import math

import polars as pl
import pytest
from pydantic import ValidationError

from data_schemas import Predictions
from qcrd_core.run.context import RunContext
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store
from qcrd_core.student.confidence import (
    Calibration,
    Point,
    calibrate,
    calibration_error,
    risk_coverage,
    shortage,
    surest_share,
    validated_calibration,
    with_confidence,
)
from qcrd_core.student.metadata import read_metadata, write_calibration
from tests.support.served import write_student
from tests.support.tiny_config import tiny_config


def _answers(rows):
    """Table `predictions` of (raw confidence, whether right; None for no gold, answer read)."""
    made = [
        {
            "question_id": f"q{number:04d}",
            "round": 0,
            "split": "validation",
            "text": "7",
            "answer": "7" if is_read else None,
            "gold_answer": None if is_right is None else "7",
            "is_correct": is_right,
            "raw_confidence": raw,
            "confidence": raw,
        }
        for number, (raw, is_right, is_read) in enumerate(rows)
    ]
    return Predictions.validate(pl.DataFrame(made, infer_schema_length=None), cast=True)


def _levels(*levels):
    """For each (raw confidence, number right, number wrong), so many answers."""
    return _answers(
        (raw, is_right, True)
        for raw, num_right, num_wrong in levels
        for is_right, count in ((True, num_right), (False, num_wrong))
        for _ in range(count)
    )


def test_calibration_finds_how_often_each_raw_confidence_is_right():
    # An overconfident student: 99% is right in 80 of 100, 60% in 30 of 100. Two levels and two
    # numbers, so the fit meets both, but for the smoothing of the targets.
    found = calibrate(_levels((0.99, 800, 200), (0.6, 300, 700)), "predict")
    assert found.confidence(0.99, has_answer=True) == pytest.approx(0.8, abs=0.002)
    assert found.confidence(0.6, has_answer=True) == pytest.approx(0.3, abs=0.002)
    assert found.confidence(0.9, has_answer=True) < found.confidence(0.91, has_answer=True)


def test_calibration_with_the_order_reversed_is_flat():
    found = calibrate(_levels((0.99, 10, 40), (0.6, 40, 10)), "predict")
    assert found.slope == 0
    assert found.confidence(0.99, has_answer=True) == pytest.approx(0.5, abs=0.01)


def test_calibration_of_perfectly_separated_answers_stays_below_certainty():
    found = calibrate(_levels((1.0, 12, 0), (0.0, 0, 12)), "predict")
    # Platt's targets for 12 of each: 13/14 and 1/14.
    assert found.confidence(1.0, has_answer=True) == pytest.approx(13 / 14, abs=1e-3)
    assert found.confidence(0.0, has_answer=True) == pytest.approx(1 / 14, abs=1e-3)


def test_calibration_of_votes_reads_the_share_itself():
    found = calibrate(_levels((1.0, 90, 10), (0.4, 50, 50)), "vote_k")
    assert found.scale == "share"
    middle = found.confidence(0.7, has_answer=True)
    ends = [found.confidence(raw, has_answer=True) for raw in (0.4, 1.0)]
    # Halfway between in x is halfway between in log odds.
    log_odds = [math.log(p / (1 - p)) for p in (*ends, middle)]
    assert log_odds[2] == pytest.approx((log_odds[0] + log_odds[1]) / 2)


def test_confidence_is_0_without_an_answer_and_none_without_a_raw_one():
    rows = [(0.9, True, True), (0.9, False, False), (None, True, True)]
    calibration = calibrate(_levels((0.99, 80, 20), (0.6, 30, 70)), "predict")
    given = with_confidence(_answers(rows), calibration)["confidence"].to_list()
    assert given[0] > 0
    assert given[1:] == [0.0, None]
    assert with_confidence(_answers(rows), None)["confidence"].null_count() == 3


@pytest.mark.parametrize(
    ("num_right", "num_wrong", "is_enough"),
    [(10, 10, True), (9, 90, False), (90, 9, True), (19, 0, False), (20, 0, True)],
)
def test_calibration_needs_ten_right_of_twenty(num_right, num_wrong, is_enough):
    answers = _levels((0.9, num_right, num_wrong))
    assert (calibrate(answers, "predict") is not None) == is_enough
    if not is_enough:
        assert shortage(answers) == (
            "Confidences need at least 20 validation answers whose raw confidence is known, 10 of "
            f"them right; there are {num_right} right and {num_wrong} wrong ones."
        )


@pytest.mark.parametrize("num_wrong", [0, 5])
def test_student_that_is_hardly_ever_wrong_has_a_flat_curve_and_a_threshold(num_wrong):
    found = calibrate(_levels((0.99, 100, 0), (0.6, 100 - num_wrong, num_wrong)), "predict")
    assert found.slope == 0
    # Platt's targets: 1 - 1/(N+ + 2) for the right ones, 1/(N- + 2) for the wrong ones.
    level = ((200 - num_wrong) * (1 - 1 / (202 - num_wrong)) + num_wrong / (num_wrong + 2)) / 200
    assert found.confidence(0.99, has_answer=True) == pytest.approx(level, abs=1e-3)
    assert surest_share(found, precision=0.9).num_answers == 200


def test_calibration_survives_being_stored():
    found = calibrate(_levels((0.99, 80, 20), (0.6, 30, 70)), "predict")
    assert Calibration.model_validate_json(found.model_dump_json()) == found


def test_surest_share_is_the_largest_whose_interval_keeps_the_precision():
    # Lower ends of Wilson intervals: 100 of 100 96.3%, 199 of 200 97.2%, 250 of 300 78.7%.
    calibration = calibrate(_levels((0.99, 100, 0), (0.9, 99, 1), (0.5, 51, 49)), "predict")
    point = surest_share(calibration, precision=0.95)
    assert (point.min_raw_confidence, point.num_answers, point.num_correct) == (0.9, 200, 199)
    assert point.interval.low == pytest.approx(0.972, abs=1e-3)
    assert surest_share(calibration, precision=0.75).num_answers == 300
    assert surest_share(calibration, precision=0.99) is None


def test_surest_share_ends_at_the_first_share_that_fails():
    # The surest 100 are bad; that a larger share is better again is not trusted.
    calibration = calibrate(_levels((0.99, 80, 20), (0.9, 400, 0)), "predict")
    assert surest_share(calibration, precision=0.9) is None


def test_points_count_answers_without_an_answer_among_the_questions():
    rows = [(0.9, True, True)] * 10 + [(0.8, False, True)] * 10 + [(0.7, False, False)] * 20
    calibration = calibrate(_answers(rows), "predict")
    assert calibration.num_questions == 40
    assert calibration.points[-1].num_answers == 20


def test_point_with_more_right_than_answers_is_refused():
    with pytest.raises(ValidationError, match="num_correct must be at most num_answers"):
        Point(min_raw_confidence=0.5, num_answers=1, num_correct=2)


def test_calibration_error_of_known_bins():
    # Confidence 0.9 is right in 7 of 10, 0.4 in 4 of 10: half the answers are 0.2 off.
    rows = _levels((0.9, 7, 3), (0.4, 4, 6))
    error, interval = calibration_error(rows)
    assert error == pytest.approx(0.1)
    assert interval.low < error < interval.high
    assert calibration_error(rows) == (error, interval)
    assert calibration_error(_answers([(None, True, True)])) is None


def test_risk_coverage_counts_from_the_surest_on():
    rows = [(0.9, True, True), (0.8, False, True), (0.8, True, True), (None, False, True)]
    curve = risk_coverage(_answers([*rows, (0.95, None, True)]))
    assert curve["coverage"].to_list() == [0.25, 0.75, 1.0]
    assert curve["risk"].to_list() == pytest.approx([0, 1 / 3, 0.5])


def test_round_is_calibrated_on_its_own_validation_answers_and_the_folder_keeps_that(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    config = tiny_config(run={"name": "tiny", "store": str(tmp_path / "store")})
    context = RunContext(config, store, RunPaths("tiny-1"))
    for round_, answers in enumerate([_levels((0.9, 1, 1)), _levels((0.9, 20, 10), (0.5, 5, 25))]):
        store.write_table(context.paths.predictions("validation", round_), answers, Predictions)
    assert validated_calibration(context, 0) is None
    found = validated_calibration(context, 1)
    assert found.num_questions == 60

    folder = write_student(tmp_path / "student")
    write_calibration(folder, found)
    assert read_metadata(folder).calibration == found
