"""Weights of several teachers, counted by hand, and what they do to a vote."""

import random

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from qcrd_core.vote.majority import summarize_votes, vote
from qcrd_core.vote.weights import UNIT, teacher_numbers, vote_weights
from tests.support.tables import make_questions, make_rationales

GOLD = {"a": "7", "b": "8", "c": None}
QUESTIONS = make_questions([{"question_id": q, "gold_answer": gold} for q, gold in GOLD.items()])
# Samples 0 to 2 are the good teacher's, 3 to 7 the weak one's. "!" is a failed request.
GOOD = {"a": ["7", "7", "3"], "b": ["8", "8", None], "c": ["1", "1", "2"]}
WEAK = {"a": ["3", "3", "7", "3", "3"], "b": ["8", "5", "5", "5", "!"], "c": ["1", "2", "2", "2"]}


def _rows(*teachers):
    rows, names = [], ("good", "weak", "third")
    for name, answers in zip(names, teachers, strict=False):
        first = 0 if name == "good" else 3
        rows += [
            {
                "question_id": q,
                "sample_idx": first + number,
                "generation": name,
                "answer": None if answer == "!" else answer,
                "failed": answer == "!",
            }
            for q, given in answers.items()
            for number, answer in enumerate(given)
        ]
    return make_rationales(rows)


def _numbers(rows, tie="abstain", names=("good", "weak")):
    return teacher_numbers(rows, QUESTIONS, names, tie)


def test_teacher_numbers_are_those_counted_by_hand():
    good, weak = _numbers(_rows(GOOD, WEAK)).to_dicts()

    # Unweighted, a: 7 three times and 3 five times; b: 8 and 5 three times each, no majority;
    # c: 1 three times, 2 four times.
    assert good == {
        "generation": "good",
        "num_samples": 9,
        "num_failed": 0,
        "num_answered": 8,
        "num_known": 5,
        "num_right": 4,
        "num_decided": 6,
        "num_agreeing": 2,
        "num_tokens": 45,
        "majority_accuracy": 1.0,
    }
    assert (weak["num_samples"], weak["num_failed"], weak["num_answered"]) == (14, 1, 13)
    assert (weak["num_known"], weak["num_right"]) == (9, 2)
    assert (weak["num_decided"], weak["num_agreeing"]) == (9, 7)
    assert weak["majority_accuracy"] == 0.0


def test_weights_are_the_odds_with_one_more_of_each():
    numbers = _numbers(_rows(GOOD, WEAK))

    # Of 5 known answers 4 are right: (4 + 1) / (1 + 1). Of 9 known 2: (2 + 1) / (7 + 1).
    assert vote_weights(numbers, "precision") == {"good": 25_000, "weak": 3_750}
    # 2 of 6 agree: 3 / 5; 7 of 9: 8 / 3 = 2.66666..., rounded.
    assert vote_weights(numbers, "agreement") == {"good": 6_000, "weak": 26_667}
    assert vote_weights(numbers, "equal") is None


def test_teacher_of_which_nothing_is_known_counts_one():
    silent = {q: [None] * 2 for q in GOLD}
    numbers = _numbers(_rows(GOOD, silent))
    absent = _numbers(_rows(GOOD))

    assert vote_weights(numbers, "precision")["weak"] == UNIT
    assert vote_weights(absent, "precision")["weak"] == UNIT
    assert absent.row(1, named=True) == {
        **dict.fromkeys(absent.columns, 0),
        **{"generation": "weak", "num_tokens": None, "majority_accuracy": None},
    }


def test_weighted_vote_sums_weights_and_shares_them():
    rows = _rows(GOOD, WEAK)
    votes = vote(rows, QUESTIONS, "abstain", weights={"good": 25_000, "weak": 3_750})

    by_id = {row["question_id"]: row for row in votes.to_dicts()}
    # a: 7 has 2 x 2.5 + 0.375, 3 has 2.5 + 4 x 0.375; all of it is 9.375.
    assert by_id["a"]["majority_answer"] == "7"
    assert by_id["a"]["vote_count"] == 3
    assert by_id["a"]["agreement"] == 5.375 / 9.375
    assert by_id["a"]["margin"] == (5.375 - 4.0) / 9.375
    # b was a tie of three to three; now 8 has 2 x 2.5 + 0.375.
    assert (by_id["b"]["majority_answer"], by_id["b"]["is_tie"]) == ("8", False)
    assert by_id["b"]["num_valid"] == 6
    assert by_id["c"]["majority_answer"] == "1"


def test_ties_of_weight_are_ties_however_they_come_about():
    rows = _rows({"a": ["7"]}, {"a": ["3", "3", "3"]})

    tied = vote(rows, QUESTIONS, "abstain", weights={"good": 3, "weak": 1}).row(0, named=True)
    assert (tied["is_tie"], tied["abstained"], tied["agreement"]) == (True, True, 0.5)
    first = vote(rows, QUESTIONS, "first", weights={"good": 3, "weak": 1}).row(0, named=True)
    assert (first["majority_answer"], first["vote_count"]) == ("7", 1)
    more = vote(rows, QUESTIONS, "first", weights={"good": 2, "weak": 1}).row(0, named=True)
    assert (more["majority_answer"], more["vote_count"]) == ("3", 3)


@pytest.mark.parametrize("weight", [1, 3_750, 26_667])
def test_weights_that_are_all_the_same_change_nothing(weight):
    rows = _rows(GOOD, WEAK)

    weighted = vote(rows, QUESTIONS, "first", weights={"good": weight, "weak": weight})
    assert_frame_equal(weighted, vote(rows, QUESTIONS, "first"))


def _teachers(seed, num_questions=400):
    """A teacher that is right in 73% of its samples, and one in 38% that is asked more often.

    Of a question that it does not know, the weak one mostly gives the same wrong answer.
    """
    chance = random.Random(seed)
    good, weak, gold = {}, {}, {}
    for number in range(num_questions):
        name = f"q{number:03d}"
        gold[name] = "7"
        ease = chance.choice([0.3, 0.7, 0.95, 0.97])
        good[name] = [_drawn(chance, ease, "3") for _ in range(3)]
        ease = chance.choice([0.05, 0.1, 0.6, 0.77])
        weak[name] = [_drawn(chance, ease, "4") for _ in range(7)]
    return good, weak, gold


def _drawn(chance, ease, usual_error):
    if chance.random() < ease:
        return "7"
    return usual_error if chance.random() < 0.6 else str(chance.randint(10, 20))


@pytest.mark.parametrize("seed", range(5))
def test_weighted_vote_is_at_least_as_right_as_the_better_teacher_on_held_out_gold(seed):
    good, weak, gold = _teachers(seed)
    rows = _rows(good, weak)
    half = dict.fromkeys(list(gold)[::2])  # the gold answers of every other question are held out
    known = make_questions(
        [{"question_id": q, "gold_answer": g if q in half else None} for q, g in gold.items()]
    )
    held_out = make_questions(
        [{"question_id": q, "gold_answer": g} for q, g in gold.items() if q not in half]
    )
    weights = vote_weights(teacher_numbers(rows, known, ("good", "weak"), "first"), "precision")

    asked = rows.filter(pl.col("question_id").is_in(held_out["question_id"].implode()))
    weighted, unweighted, alone = (
        summarize_votes(vote(some, held_out, "first", weights=weight))["majority_accuracy"]
        for some, weight in (
            (asked, weights),
            (asked, None),
            (asked.filter(generation="good"), None),
        )
    )
    assert weighted >= alone > unweighted
