"""When a challenger takes the champion's place."""

from fractions import Fraction
from math import comb

import polars as pl
import pytest

from qcrd_core.config.operations import PromotionSection
from qcrd_core.evaluation import mcnemar_p_value
from qcrd_core.registry.promotion import compare, frozen_answers
from tests.support.tables import make_questions

RULE = PromotionSection()


def _answers(right, *, total=100, text="How many?", gold="4", template=None):
    """The first `right` of `total` test questions answered rightly."""
    names = [f"q{number:03d}" for number in range(total)]
    rows = [
        {"question_id": name, "split": "test", "question": text, "gold_answer": gold,
         "template": template}
        for name in names
    ]  # fmt: skip
    predictions = pl.DataFrame({
        "question_id": names, "is_correct": [number < right for number in range(total)]
    })  # fmt: skip
    return frozen_answers(make_questions(rows), predictions)


@pytest.mark.parametrize(
    ("gained", "lost"), [(0, 0), (1, 0), (0, 1), (25, 13), (5, 5), (700, 640), (2, 9)]
)
def test_mcnemar_p_value_is_the_binomial_tail(gained, lost):
    total = gained + lost
    tail = sum(Fraction(comb(total, count), 2**total) for count in range(gained, total + 1))

    p_value = mcnemar_p_value(gained, lost, alternative="greater")
    assert p_value == pytest.approx(float(tail), rel=1e-12, abs=0)


def test_mcnemar_p_value_of_eight_against_two():
    # (45 + 10 + 1) / 1024
    assert mcnemar_p_value(8, 2, alternative="greater") == 0.0546875


def _labels(right):
    """Test answers to 60 questions labelled "no" and 40 labelled "yes", of which `right` are right.

    The student is right on all with "yes" first.
    """
    names = [f"q{number:03d}" for number in range(100)]
    rows = [
        {"question_id": name, "split": "test", "question": "Is it?",
         "gold_answer": "yes" if number < 40 else "no"}
        for number, name in enumerate(names)
    ]  # fmt: skip
    predictions = pl.DataFrame({
        "question_id": names, "is_correct": [number < right for number in range(100)]
    })  # fmt: skip
    return frozen_answers(make_questions(rows), predictions)


@pytest.mark.parametrize(("right", "promote"), [(0, False), (60, False), (70, False), (80, True)])
def test_first_champion_must_beat_the_most_frequent_answer(right, promote):
    decision = compare(None, _labels(right), RULE)

    assert decision.promote is promote
    first = (
        f"There was no champion before. {right} of 100 test answers are right, against 60 for the "
        "most frequent answer, 'no'."
    )
    assert decision.reasons[0] == first
    assert len(decision.reasons) == 3


@pytest.mark.parametrize(("least", "promote"), [(0.0, True), (0.3, True), (0.31, False)])
def test_first_champion_may_need_a_set_accuracy_instead(least, promote):
    decision = compare(None, _labels(30), PromotionSection(first_accuracy=least))

    assert decision.promote is promote
    assert f"at least {least:.1%} required" in decision.reasons[0]


@pytest.mark.parametrize(
    ("right", "promote"), [(40, False), (50, False), (54, False), (55, True), (70, True)]
)
def test_compare_promotes_only_a_gain_that_chance_does_not_explain(right, promote):
    # Gained 4, lost 0: p = 1/16. Gained 5: p = 1/32.
    assert compare(_answers(50), _answers(right), RULE).promote is promote


def test_compare_says_what_held_and_what_did_not():
    decision = compare(_answers(50), _answers(54), RULE)

    assert decision.reasons == (
        "54 of 100 test answers are right, against 50 of the champion: 4 gained, 0 lost.",
        "Gain of +4.00 points, more than 0 required: met.",
        "Exact McNemar test p = 0.0625, at most 0.05 required: not met.",
    )


def test_compare_holds_to_the_least_gain():
    rule = PromotionSection(min_gain=0.1)

    assert not compare(_answers(50), _answers(59), rule).promote
    assert compare(_answers(50), _answers(60), rule).promote


@pytest.mark.parametrize(
    "changed",
    [{"text": "How much?"}, {"gold": "5"}, {"total": 99}],
    ids=["text", "gold answer", "question gone"],
)
def test_compare_on_changed_test_set_refuses_with_the_reason(changed):
    decision = compare(_answers(50), _answers(90, **changed), RULE)

    assert not decision.promote
    assert decision.reasons[0].startswith("The test set has changed since the champion was")


def test_compare_asks_only_the_champions_questions_of_a_test_set_that_grew():
    decision = compare(_answers(50), _answers(70, total=300), RULE)

    assert decision.promote
    assert decision.comparison.whole.num_questions == 100


def _sliced(easy, hard):
    frames = [_answers(right, total=20, template=name) for name, right in
              (("easy", easy), ("hard", hard))]  # fmt: skip
    renamed = [
        frame.with_columns(pl.col("template") + pl.lit("/") + pl.col("question_id")).with_columns(
            question_id=pl.col("template"), template=pl.lit(name)
        )
        for name, frame in zip(("easy", "hard"), frames, strict=True)
    ]
    return pl.concat(renamed)


@pytest.mark.parametrize(
    ("rule", "promote", "reason"),
    [
        (RULE, True, None),
        (PromotionSection(guarded_slices=("easy",)), True, "Slice easy: 20 of 20 right"),
        (PromotionSection(guarded_slices=("hard",)), False, "Slice hard: 9 of 20 right"),
        (PromotionSection(guarded_slices=("hard",), slice_tolerance=0.05), True, "Slice hard"),
        (PromotionSection(guarded_slices=("odd",)), False, "Slice odd has no test questions"),
    ],
    ids=["none", "gains", "loses", "loses what is tolerated", "unknown"],
)
def test_compare_guards_named_slices(rule, promote, reason):
    decision = compare(_sliced(easy=10, hard=10), _sliced(easy=20, hard=9), rule)

    assert decision.promote is promote
    assert reason is None or any(text.startswith(reason) for text in decision.reasons)


def test_frozen_answers_leaves_out_questions_nobody_can_be_right_on():
    questions = make_questions(
        [
            {"question_id": "a", "split": "test", "gold_answer": "1"},
            {"question_id": "b", "split": "test"},
            {"question_id": "c", "split": "train", "gold_answer": "1"},
        ]
    )
    predictions = pl.DataFrame({"question_id": ["a", "b"], "is_correct": [True, None]})

    assert frozen_answers(questions, predictions)["question_id"].to_list() == ["a"]
