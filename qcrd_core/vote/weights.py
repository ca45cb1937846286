"""What the votes of several teachers count, and how right each teacher is.

    numbers = teacher_numbers(rationales, questions, generations, tie="abstain")
    votes = vote(rationales, questions, tie, weights=vote_weights(numbers, "precision"))

A vote counts as much as the odds that an answer of its teacher is right: of r right and w wrong
answers, (r + 1) / (w + 1). That is p / (1 - p) of the posterior mean p of its precision with a
uniform prior (Laplace's rule of succession), so a teacher of which little is known counts about 1
and no weight is 0 or infinite. With `agreement`, right means equal to the unweighted majority.

Between two answers and for independent voters the best weights are the logarithms of these odds
(Nitzan and Paroush 1982, "Optimal Decision Rules in Uncertain Dichotomous Choice Situations"). For
more answers the logarithm depends on how many there are, and without them it silences a teacher
that is wrong in half of its samples, though its majority may be right. The odds need neither. On
real samples beside a simulated weak teacher (`benchmarks.teachers`) they never lost to the better
teacher alone; weights of p itself did in four of six cases in which the weak one had more samples.

This is no estimate of hidden truth as by Dawid and Skene 1979: a teacher has one weight for all
questions and answers, and it is counted once, not iterated.
"""

from collections.abc import Sequence
from typing import Literal

import polars as pl

from qcrd_core.vote.majority import Compose, Tie, is_correct, summarize_votes, vote

Weights = Literal["equal", "precision", "agreement"]

WEIGHT_COLUMNS = ("generation", "num_tokens")
"""Columns of table `rationales` that this module reads beside `VOTE_COLUMNS`."""
UNIT = 10_000
"""Weight of odds of 1; weights are whole numbers, so that their sums are exact."""
_COUNTED = {"precision": ("num_right", "num_known"), "agreement": ("num_agreeing", "num_decided")}


def vote_weights(numbers: pl.DataFrame, weights: Weights) -> dict[str, int] | None:
    """What a vote of each teacher counts.

    Args:
        numbers: From `teacher_numbers`.
        weights: Setting `voting.weights`.

    Returns:
        Weights by generation, at least 1, for `vote`; None if all count the same.
    """
    if weights == "equal":
        return None
    right, known = _COUNTED[weights]
    rows = numbers.select("generation", right, known).iter_rows()
    # Whole numbers, rounded half up: a float would make near ties depend on the machine.
    return {name: max(1, _rounded(UNIT * (r + 1), n - r + 1)) for name, r, n in rows}


def teacher_numbers(
    rationales: pl.DataFrame,
    questions: pl.DataFrame,
    generations: Sequence[str],
    tie: Tie,
    compose: Compose | None = None,
) -> pl.DataFrame:
    """Count how right each teacher is.

    Args:
        rationales: `VOTE_COLUMNS` and `WEIGHT_COLUMNS` of table `rationales`, the rows of the vote.
        questions: Table `questions`.
        generations: Fingerprints of the teachers' samples.
        tie: As in `vote`.
        compose: As in `vote`.

    Returns:
        A row per generation, in their order: generation; num_samples; num_failed; num_answered;
        num_known (answers to questions with a gold answer) and num_right of them; num_decided
        (answers to questions with an unweighted majority) and num_agreeing of them; num_tokens
        (sampled; null if no engine counted them); majority_accuracy (of the teacher's samples
        alone, as in `summarize_votes`).
    """
    unweighted = vote(rationales, questions, tie, compose).select(
        "question_id", "majority_answer", "gold_answer"
    )
    answered, right = pl.col("answer").is_not_null(), is_correct()
    decided = answered & pl.col("majority_answer").is_not_null()
    counts = (
        rationales.join(unweighted, on="question_id", how="inner")
        .group_by("generation")
        .agg(
            num_samples=pl.len(),
            num_failed=(pl.col("status") == "failed").sum(),
            num_answered=answered.sum(),
            num_known=(answered & right.is_not_null()).sum(),
            num_right=(answered & right).sum(),
            num_decided=decided.sum(),
            num_agreeing=(decided & (pl.col("answer") == pl.col("majority_answer"))).sum(),
            num_tokens=pl.when(pl.col("num_tokens").count() > 0).then(
                pl.col("num_tokens").cast(pl.Int64).sum()
            ),
        )
        .with_columns(pl.col("^num_.*$").cast(pl.Int64))
    )
    wanted = pl.DataFrame({"generation": list(generations)}, schema={"generation": pl.String})
    joined = wanted.join(counts, on="generation", how="left", maintain_order="left")
    # A teacher without samples has counts of 0, but its tokens stay unknown.
    filled = joined.with_columns(pl.exclude("generation", "num_tokens").fill_null(0))
    alone = [
        vote(rationales.filter(generation=name), questions, tie, compose) for name in generations
    ]
    accuracies = [summarize_votes(votes)["majority_accuracy"] for votes in alone]
    return filled.with_columns(majority_accuracy=pl.Series(accuracies, dtype=pl.Float64))


def _rounded(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
