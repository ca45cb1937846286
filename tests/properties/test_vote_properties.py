"""The vote against a slow oracle, and what may not change it."""

import random

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from qcrd_core.vote.majority import vote
from tests.support.tables import make_questions, make_rationales

GOLD = {"a": "1", "b": "2", "c": None}
QUESTIONS = make_questions([{"question_id": k, "gold_answer": v} for k, v in GOLD.items()])
TIES = st.sampled_from(["abstain", "first", "logprob"])
SAMPLES = st.lists(
    st.tuples(
        st.sampled_from([None, "1", "2", "3"]),
        st.sampled_from([None, -3.0, -2.0, -1.0]),
    ),
    max_size=7,
)
TABLES = st.fixed_dictionaries(dict.fromkeys(GOLD, SAMPLES))


def to_rows(table):
    return [
        {"question_id": key, "sample_idx": i, "answer": answer, "cumulative_logprob": logprob}
        for key, samples in table.items()
        for i, (answer, logprob) in enumerate(samples)
    ]


def oracle_winner(samples, tie):
    """Most votes by plain counting; None when the vote abstains."""
    votes = [(answer, logprob, i) for i, (answer, logprob) in enumerate(samples) if answer]
    counts = {answer: sum(v[0] == answer for v in votes) for answer, _, _ in votes}
    tied = [answer for answer, count in counts.items() if count == max(counts.values())]
    if not tied or (tie == "abstain" and len(tied) > 1):
        return None

    def rank(answer):
        own = [v for v in votes if v[0] == answer]
        logprob = max((v[1] for v in own if v[1] is not None), default=float("-inf"))
        return (logprob if tie == "logprob" else 0, -min(v[2] for v in own))

    return max(tied, key=rank)


@settings(deadline=None, max_examples=60)
@given(table=TABLES, tie=TIES)
def test_vote_equals_slow_oracle(table, tie):
    got = {
        r["question_id"]: r
        for r in vote(make_rationales(to_rows(table)), QUESTIONS, tie).rows(named=True)
    }
    assert got.keys() == {key for key, samples in table.items() if samples}
    for key, row in got.items():
        counts = sorted((sum(a == x for a, _ in table[key]) for x in "123"), reverse=True)
        winner = oracle_winner(table[key], tie)
        assert row["majority_answer"] == winner
        assert row["num_valid"] == sum(counts)
        assert row["vote_count"] == counts[0]
        assert row["margin"] == ((counts[0] - counts[1]) / sum(counts) if sum(counts) else None)
        assert row["is_tie"] == (counts[0] == counts[1] > 0)
        assert row["is_majority_correct"] == (winner == GOLD[key] if winner and GOLD[key] else None)


@settings(deadline=None, max_examples=60)
@given(table=TABLES, tie=TIES, seed=st.integers(0, 2**16))
def test_vote_with_rows_permuted_is_unchanged(table, tie, seed):
    rows = to_rows(table)
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert_frame_equal(
        vote(make_rationales(rows), QUESTIONS, tie),
        vote(make_rationales(shuffled), QUESTIONS, tie),
    )


@settings(deadline=None, max_examples=60)
@given(table=TABLES, tie=TIES, failed=st.booleans())
def test_vote_with_one_more_invalid_row_changes_only_num_samples(table, tie, failed):
    rows = to_rows(table)
    before = vote(make_rationales(rows), QUESTIONS, tie)
    extra = [
        {"question_id": key, "sample_idx": 99, "failed": failed} for key in before["question_id"]
    ]
    after = vote(make_rationales(rows + extra), QUESTIONS, tie)
    expected = before.with_columns((pl.col("num_samples") + 1).alias("num_samples"))
    assert_frame_equal(after, expected)


def of_teachers(table, num_first):
    """The rows as those of two teachers: the first `num_first` samples, and the rest."""
    rows = to_rows(table)
    return [{**row, "generation": "ab"[row["sample_idx"] >= num_first]} for row in rows]


SEEDS = st.integers(0, 99)
WEIGHTS = st.fixed_dictionaries(dict.fromkeys("ab", st.integers(1, 10**12)))


@settings(deadline=None, max_examples=60)
@given(table=TABLES, tie=TIES, weights=WEIGHTS)
def test_one_teacher_of_any_weight_votes_as_without_weights(table, tie, weights):
    rows = make_rationales(of_teachers(table, 7))

    assert_frame_equal(
        vote(rows, QUESTIONS, tie, weights=weights), vote(rows, QUESTIONS, tie), check_exact=True
    )


@settings(deadline=None, max_examples=60)
@given(
    table=TABLES, tie=TIES, weights=WEIGHTS, num_first=st.integers(0, 7), seed=st.integers(0, 99)
)
def test_weighted_vote_equals_slow_oracle_in_any_order(table, tie, weights, num_first, seed):
    rows = of_teachers(table, num_first)
    shuffled = random.Random(seed).sample(rows, len(rows))
    got = vote(make_rationales(rows), QUESTIONS, tie, weights=weights)

    assert_frame_equal(
        vote(make_rationales(shuffled), QUESTIONS, tie, weights=weights), got, check_exact=True
    )
    for row in got.rows(named=True):
        given = [r for r in rows if r["question_id"] == row["question_id"] and r["answer"]]
        sums = {a: sum(weights[r["generation"]] for r in given if r["answer"] == a) for a in "123"}
        best = max(sums.values())
        tied = [answer for answer, weight in sums.items() if weight == best > 0]
        assert row["is_tie"] == (len(tied) > 1)
        assert row["agreement"] == (best / sum(sums.values()) if given else None)
        if len(tied) == 1:
            assert row["majority_answer"] == tied[0]
            assert row["vote_count"] == sum(r["answer"] == tied[0] for r in given)
        elif tie == "abstain" or not tied:
            assert row["majority_answer"] is None
        else:
            assert row["majority_answer"] in tied
