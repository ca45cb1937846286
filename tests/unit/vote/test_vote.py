"""The vote, the polarity and the summary on tables small enough to count by hand."""

import logging

import polars as pl
import pytest

from data_schemas import Votes
from qcrd_core.data.answers import AnswerSpec
from qcrd_core.errors import DataError
from qcrd_core.vote.candidates import decide_polarity
from qcrd_core.vote.majority import vote, vote_summary
from qcrd_core.vote.parts import compose
from tests.support.tables import make_questions, make_rationales


def answers(question_id, values, logprobs=None):
    """Rows of one question: a text votes, None is unparsable, "!" is a failed request."""
    logprobs = logprobs or [None] * len(values)
    return [
        {
            "question_id": question_id,
            "sample_idx": index,
            "answer": None if value == "!" else value,
            "failed": value == "!",
            "cumulative_logprob": logprob,
        }
        for index, (value, logprob) in enumerate(zip(values, logprobs, strict=True))
    ]


def one_vote(values, tie="abstain", gold="7", logprobs=None):
    questions = make_questions([{"question_id": "a", "gold_answer": gold}])
    rationales = make_rationales(answers("a", values, logprobs))
    return vote(rationales, questions, tie).row(0, named=True)


def polarities(values, positives, gold="7"):
    questions = make_questions([{"question_id": "a", "gold_answer": gold}])
    rationales = make_rationales(answers("a", values))
    votes = vote(rationales, questions, "abstain")
    decided = decide_polarity(rationales, votes, positives)
    return dict(decided.select("sample_idx", "polarity").iter_rows())


def test_vote_with_clear_majority_counts_only_answers():
    row = one_vote(["7", "7", "3", None, "!", "7", "5"])
    assert row == {
        "question_id": "a",
        "majority_answer": "7",
        "num_samples": 7,
        "num_valid": 5,
        "vote_count": 3,
        "agreement": 3 / 5,
        "margin": 2 / 5,
        "is_tie": False,
        "abstained": False,
        "gold_answer": "7",
        "is_majority_correct": True,
    }


def test_vote_with_one_sample_has_full_margin():
    row = one_vote(["3"])
    assert (row["majority_answer"], row["agreement"], row["margin"]) == ("3", 1.0, 1.0)
    assert row["is_majority_correct"] is False


@pytest.mark.parametrize("tie", ["abstain", "first", "logprob"])
def test_vote_without_voters_abstains_under_every_policy(tie):
    row = one_vote([None, "!"], tie)
    assert row["abstained"]
    assert not row["is_tie"]
    assert (row["majority_answer"], row["agreement"], row["margin"]) == (None, None, None)
    assert (row["num_valid"], row["vote_count"], row["is_majority_correct"]) == (0, 0, None)


@pytest.mark.parametrize(
    ("tie", "logprobs", "winner"),
    [
        ("abstain", [-1.0, -2.0, -3.0, -4.0], None),
        ("first", [-9.0, -2.0, -9.0, -4.0], "3"),
        ("logprob", [-5.0, -2.0, -3.0, -9.0], "7"),
        ("logprob", [None, -99.0, None, None], "7"),
        ("logprob", [None, None, None, None], "3"),
        ("logprob", [-2.0, -2.0, None, None], "3"),
    ],
    ids=["abstain", "first", "best-sample", "nulls-last", "all-null-first", "equal-first"],
)
def test_vote_with_tie_follows_policy(tie, logprobs, winner):
    row = one_vote(["3", "7", "3", "7"], tie, logprobs=logprobs)
    assert row["majority_answer"] == winner
    assert row["abstained"] is (winner is None)
    assert row["is_tie"]
    assert (row["agreement"], row["margin"]) == (0.5, 0.0)


def test_vote_with_logprob_policy_keeps_a_clear_majority_over_a_likelier_answer():
    assert one_vote(["3", "3", "7"], "logprob", logprobs=[-9, -9, -1])["majority_answer"] == "3"


def test_vote_without_gold_leaves_correctness_null():
    assert one_vote(["7", "7"], gold=None)["is_majority_correct"] is None


def test_vote_with_rationales_of_other_questions_leaves_them_out_and_logs(caplog):
    questions = make_questions([{"question_id": "b"}, {"question_id": "a"}])
    rationales = make_rationales(answers("a", ["1"]) + answers("z", ["1", "2"]))
    with caplog.at_level(logging.INFO):
        votes = vote(rationales, questions, "first")
    assert votes["question_id"].to_list() == ["a"]
    assert "Ignored 2 rationales of questions that are not in this run" in caplog.text


def test_vote_with_no_rows_gives_empty_valid_table():
    votes = vote(make_rationales([]), make_questions([]), "abstain")
    assert votes.is_empty()
    assert Votes.is_valid(votes)


def test_vote_with_student_rationale_is_refused():
    rows = [{**row, "source": "student", "round": 1} for row in answers("a", ["1"])]
    with pytest.raises(DataError, match="must count teacher or imported rationales; got 1 rows"):
        vote(make_rationales(rows), make_questions([{"question_id": "a"}]), "abstain")


@pytest.mark.parametrize(
    ("positives", "expected"),
    [
        ("majority", {0: "positive", 1: "positive", 2: "negative", 3: "negative"}),
        ("gold", {0: "negative", 1: "negative", 2: "positive", 3: "negative"}),
        ("majority_and_gold", {0: "negative", 1: "negative", 2: "negative", 3: "negative"}),
    ],
)
def test_polarity_with_wrong_majority_follows_reference(positives, expected):
    assert polarities(["3", "3", "7", None, "!"], positives) == expected


def test_polarity_with_right_majority_and_gold_is_positive():
    assert polarities(["7", "7", "3"], "majority_and_gold") == {
        0: "positive",
        1: "positive",
        2: "negative",
    }


def test_polarity_with_tie_decides_only_the_unparsable():
    assert polarities(["3", "7", None], "majority") == {
        0: "undecided",
        1: "undecided",
        2: "negative",
    }


def test_polarity_with_tie_and_gold_pushes_off_only_what_gold_refutes():
    assert polarities(["3", "7", None], "majority_and_gold") == {
        0: "negative",
        1: "undecided",
        2: "negative",
    }


def test_polarity_without_gold_under_gold_decides_nothing(caplog):
    with caplog.at_level(logging.INFO):
        assert polarities(["3", "3", "!"], "gold", gold=None) == {0: "undecided", 1: "undecided"}
    assert "0 rationales decided | 2 undecided (no reference, or cut) | 1 failed" in caplog.text


def test_polarity_of_a_text_that_was_cut_before_its_answer_is_undecided():
    questions = make_questions([{"question_id": "a", "gold_answer": "7"}])
    rows = answers("a", ["7", "7", None, None, "3"])
    rationales = make_rationales([
        {**row, "finish_reason": "length" if row["sample_idx"] in {1, 3, 4} else "stop"}
        for row in rows
    ])  # fmt: skip
    decided = decide_polarity(rationales, vote(rationales, questions, "abstain"), "majority")
    expected = ["positive", "positive", "negative", "undecided", "negative"]
    assert decided["polarity"].to_list() == expected


def test_polarity_reports_correctness_apart_from_polarity():
    questions = make_questions([{"question_id": "a", "gold_answer": "7"}, {"question_id": "b"}])
    rationales = make_rationales(answers("a", ["3", "3", "7", None]) + answers("b", ["1"]))
    frame = decide_polarity(rationales, vote(rationales, questions, "abstain"), "majority")
    assert frame.columns == ["question_id", "source", "sample_idx", "polarity", "is_correct"]
    assert frame["is_correct"].to_list() == [False, False, True, False, None]


def test_vote_summary_with_mixed_table_counts_by_hand():
    questions = make_questions(
        [{"question_id": key, "gold_answer": "7"} for key in "abc"]
        + [{"question_id": "d"}, {"question_id": "e", "gold_answer": "7"}]
    )
    rationales = make_rationales(
        answers("a", ["7", "7", "3"])  # right, 2 of 3
        + answers("b", ["3", "7", None, "!"])  # tie: abstains
        + answers("c", ["3"])  # wrong
        + answers("d", ["1", "1"])  # no gold
    )
    summary = vote_summary(vote(rationales, questions, "abstain"), rationales, questions)
    assert summary == {
        "num_questions": 4,
        "num_questions_without_rationale": 1,
        "num_questions_with_gold": 3,
        "num_samples": 10,
        "num_failed": 1,
        "num_unparsable": 1,
        "num_thought_only": 0,
        "num_cut_at_max_tokens": 0,
        "num_ties": 1,
        "num_abstained": 1,
        "sample_accuracy": 3 / 7,
        "majority_accuracy": 1 / 3,
        "majority_accuracy_decided": 1 / 2,
        "mean_agreement": pytest.approx((2 / 3 + 1 / 2 + 1 + 1) / 4),
        "unparsable_share": 1 / 9,
    }


def test_vote_summary_without_rows_measures_nothing():
    empty = make_rationales([])
    questions = make_questions([{"question_id": "a"}])
    summary = vote_summary(vote(empty, questions, "abstain"), empty, questions)
    assert summary["num_questions_without_rationale"] == 1
    assert {name for name, value in summary.items() if value is None} == {
        "sample_accuracy",
        "majority_accuracy",
        "majority_accuracy_decided",
        "mean_agreement",
        "unparsable_share",
    }


def test_vote_over_many_shuffled_questions_orders_within_each():
    # Big enough for several threads: the winner may not depend on how rows are spread over them.
    indices = pl.DataFrame({"index": range(20_000)}).sample(fraction=1, shuffle=True, seed=1)
    rationales = pl.DataFrame(make_rationales(answers("a", ["x"]))).select(
        pl.all().exclude("question_id", "sample_idx", "answer")
    )
    rationales = indices.join(rationales, how="cross").with_columns(
        question_id=pl.format("q{}", pl.col("index") // 4),
        sample_idx=(pl.col("index") % 4).cast(pl.Int32),
        answer=pl.format("{}", pl.col("index") % 2),
    )
    ids = rationales["question_id"].unique().to_list()
    votes = vote(rationales, make_questions([{"question_id": key} for key in ids]), "first")
    assert votes["majority_answer"].unique().to_list() == ["0"]


LABELS = AnswerSpec(kind="labels", labels=("a", "b", "c"))
JSON = AnswerSpec(kind="json")
NOT_EMPTY = AnswerSpec(kind="json", json_schema={"minProperties": 1})


@pytest.mark.parametrize(
    ("answers", "spec", "expected"),
    [
        (["a, b", "b, c", "b"], LABELS, "b"),
        (["a, b", "a, b, c", "b, c"], LABELS, "a, b, c"),  # each in two of three
        (["a", "b"], LABELS, "none"),  # a half is no majority
        (["none", "none", "a"], LABELS, "none"),
        (['{"x": 1, "y": 2}', '{"x": 1, "y": 3}'], JSON, '{"x": 1, "y": 2}'),
        (['{"x": 1}', '{"x": 2, "z": 0}', '{"x": 2, "y": 0}'], JSON, '{"x": 2}'),
        (['{"x": ["ü"]}', '{"x": ["ü"], "y": 1}'], JSON, '{"x": ["ü"]}'),
        (['{"x": 1}', "[1]"], JSON, None),
        (['{"x": 1}', '{"y": 1}'], JSON, "{}"),
        (['{"x": 1}', '{"y": 1}'], NOT_EMPTY, None),
    ],
)
def test_compose_takes_what_most_answers_have(answers, spec, expected):
    assert compose(answers, spec) == expected


def test_vote_on_parts_decides_ties_alone():
    def parts(answers):
        assert answers == ["a, b", "b, c"]  # in the order of the samples
        return "b"

    rows = answers("a", ["a, b", "b, c"]) + answers("b", ["a", "a", "c"]) + answers("c", [None])
    questions = make_questions([{"question_id": q, "gold_answer": "b"} for q in "abc"])
    votes = vote(make_rationales(rows[::-1]), questions, "parts", parts)
    assert votes["majority_answer"].to_list() == ["b", "a", None]
    assert votes["is_majority_correct"].to_list() == [True, False, None]
    assert votes["abstained"].to_list() == [False, False, True]
    assert votes["is_tie"].to_list() == [True, False, False]


def test_vote_on_parts_that_fit_no_answer_abstains():
    rows = make_rationales(answers("a", ["x", "y"]))
    questions = make_questions([{"question_id": "a"}])
    assert vote(rows, questions, "parts", lambda _: None)["abstained"].to_list() == [True]


def test_rationales_that_differ_from_an_answer_made_of_parts_are_undecided():
    rows = make_rationales(answers("a", ["a, b", "b, c", "b"]) + answers("b", ["b", "b", "c"]))
    questions = make_questions([{"question_id": q} for q in "ab"])
    votes = vote(rows, questions, "parts", lambda _: "b")
    decided = decide_polarity(rows, votes, "majority", are_ties_composed=True)
    assert decided["polarity"].to_list() == [
        *("undecided", "undecided", "positive"),
        *("positive", "positive", "negative"),
    ]
