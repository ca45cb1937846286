"""Self-consistency: the majority answer of each question.

    votes = vote(rationales, questions, tie="abstain")

Answers are already canonical (`qcrd_core.data.answers`), so equal texts have equal meaning. Votes
of several teachers may have different weights (`qcrd_core.vote.weights`). Weights are whole
numbers, so that sums are exact and a tie is a tie in any order of the rows.
Source: arXiv 2405.13014, figure 2b; arXiv 2203.11171, section 2.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import polars as pl

from data_schemas.votes import Votes
from qcrd_core.errors import DataError

logger = logging.getLogger(__name__)

Tie = Literal["abstain", "first", "logprob", "parts"]
Compose = Callable[[Sequence[str]], str | None]
"""From tied answers, one per sample, to an answer or None."""

VOTE_COLUMNS = (
    "question_id",
    "sample_idx",
    "source",
    "answer",
    "status",
    "error",
    "finish_reason",
    "cumulative_logprob",
)
"""Columns of table `rationales` that this module reads: all except the texts."""


def vote(
    rationales: pl.DataFrame,
    questions: pl.DataFrame,
    tie: Tie,
    compose: Compose | None = None,
    weights: Mapping[str, int] | None = None,
) -> pl.DataFrame:
    """Find the majority of each question's canonical answers.

    Only rows with an answer vote. Rows without one (unparsable or failed) count only in
    `num_samples`. A question without rows gets no vote. Rationales of other questions, which exist
    because runs with different subsets share a generation, are ignored; their number is logged.

    Args:
        rationales: Table `rationales`, only teacher or imported rows, in any order.
        questions: Table `questions`.
        tie: What happens if several answers have the most votes. abstain: no majority. first: the
            tied answer with the lowest sample_idx. logprob: the tied answer whose likeliest sample
            has the highest cumulative_logprob; answers without a log-probability come last, and
            `first` decides the answers that are still tied. parts: what `compose` makes of the
            question's answers, all with the same weight; no majority if that is None.
        compose: For parts.
        weights: What a vote of each `generation` counts, at least 1; the answer with the greatest
            sum wins. None: every vote counts 1, and the column `generation` is not read.

    Returns:
        Table `votes`, sorted by question_id.

    Raises:
        DataError: If a student's rationale is among the rows.
    """
    _refuse_students(rationales)
    gold = questions.lazy().select("question_id", "gold_answer")
    rows = rationales.lazy().select(
        "question_id", "sample_idx", "answer", "cumulative_logprob", *_weight(weights)
    )
    # question_id, num_samples, num_valid: `count` leaves out nulls, so only answers are voters.
    totals = rows.group_by("question_id").agg(
        pl.len().alias("num_samples"), pl.col("answer").count().alias("num_valid")
    )
    winners = _winners(rows, tie, pl.len() if weights is None else pl.col("weight").sum())
    frame = (
        # Inner: questions of this run alone. Left: a question in which nobody votes keeps its row.
        totals.join(gold, on="question_id", how="inner")
        .join(winners, on="question_id", how="left")
        .pipe(_with_composed, rows, compose if tie == "parts" else None)
        .with_columns(pl.col("vote_count", "second_weight", "num_tied").fill_null(0))
        # The winner ties with itself, so a tie is two or more with the most votes.
        .with_columns(is_tie=pl.col("num_tied") > 1)
        .with_columns(abstained=_abstained(tie))
        .with_columns(
            majority_answer=pl.when(~pl.col("abstained")).then("winner"),
            # Shares of the voters, not of the samples: an unparsable one disagrees with nobody.
            # Null without voters, because then there is no weight.
            agreement=pl.col("weight") / pl.col("total_weight"),
            margin=(pl.col("weight") - pl.col("second_weight")) / pl.col("total_weight"),
        )
        .with_columns(is_majority_correct=pl.col("majority_answer") == pl.col("gold_answer"))
        .select(Votes.column_names())
        .sort("question_id")
        .collect()
    )
    _log_left_out(rationales.height - int(frame["num_samples"].sum()))
    return Votes.validate(frame, cast=True)


def references(votes: pl.DataFrame, feedback: pl.DataFrame) -> pl.DataFrame:
    """The answer that counts as right for each question when labels are not gold.

    Args:
        votes: Table `votes`.
        feedback: Table `feedback`, one row per question: its answers replace the majority.

    Returns:
        question_id, majority_answer, gold_answer, is_tie (false if an answer was sent); also for
        questions with feedback alone.
    """
    given = feedback.select("question_id", given="gold_answer")
    rows = votes.select("question_id", "majority_answer", "gold_answer", "is_tie")
    joined = rows.join(given, on="question_id", how="full", coalesce=True)
    return joined.select(
        "question_id",
        majority_answer=pl.coalesce("given", "majority_answer"),
        gold_answer=pl.coalesce("given", "gold_answer"),
        is_tie=pl.col("given").is_null() & pl.col("is_tie"),
    ).sort("question_id")


def vote_summary(
    votes: pl.DataFrame, rationales: pl.DataFrame, questions: pl.DataFrame
) -> dict[str, float | None]:
    """Measure the teacher's accuracy and agreement.

    Args:
        votes: Table `votes`.
        rationales: Table `rationales`, the rows of the vote.
        questions: Table `questions`; those without a rationale are counted.

    Returns:
        The numbers of `summarize_votes`, and for the samples: counts `num_*`; sample_accuracy
        (correct samples / completed samples of questions with gold; an unparsable sample is wrong,
        a failed request is not a sample); and unparsable_share (of completed samples). The shares
        are None if there is no such sample. `num_verifier_failed` is there only if one did.
    """
    rows = rationales.join(votes.select("question_id", "gold_answer"), on="question_id")
    # A failed request says nothing of the teacher. An unparsable text does: it counts as wrong.
    completed = rows.filter(pl.col("status") != "failed")
    unvoted = questions.join(votes, on="question_id", how="anti")
    num_unparsable = completed["answer"].null_count()
    # A completed sample has an error if a verifier failed on it.
    num_unverified = completed["error"].count()
    return {
        **summarize_votes(votes),
        "num_questions_without_rationale": unvoted.height,
        "num_samples": rows.height,
        "num_failed": rows.height - completed.height,
        "num_unparsable": num_unparsable,
        "num_thought_only": int((completed["status"] == "thought_only").sum()),
        "num_cut_at_max_tokens": int((completed["finish_reason"] == "length").sum()),
        **({"num_verifier_failed": num_unverified} if num_unverified else {}),
        "sample_accuracy": _mean(completed.select(is_correct())["is_correct"]),
        "unparsable_share": num_unparsable / completed.height if completed.height else None,
    }


def summarize_votes(votes: pl.DataFrame) -> dict[str, float | None]:
    """The numbers of `vote_summary` that need only table `votes`.

    Args:
        votes: Table `votes`.

    Returns:
        Counts `num_*`, and shares in [0, 1], which are None if nothing can be measured:
        majority_accuracy: correct majorities / questions with gold (abstained is wrong);
        majority_accuracy_decided: the same over the votes that did not abstain; mean_agreement.
    """
    with_gold = votes.filter(pl.col("gold_answer").is_not_null())
    return {
        "num_questions": votes.height,
        "num_questions_with_gold": with_gold.height,
        "num_ties": int(votes["is_tie"].sum()),
        "num_abstained": int(votes["abstained"].sum()),
        # Null is an abstained vote: wrong in the first, left out of the second.
        "majority_accuracy": _mean(with_gold["is_majority_correct"].fill_null(value=False)),
        "majority_accuracy_decided": _mean(with_gold["is_majority_correct"]),
        "mean_agreement": _mean(votes["agreement"]),
    }


def is_correct() -> pl.Expr:
    """Whether `answer` equals `gold_answer`; null without a gold answer, as `is_correct`."""
    # eq_missing: without an answer it is wrong (false), while == would leave it unknown (null).
    correct = pl.col("answer").eq_missing(pl.col("gold_answer"))
    return pl.when(pl.col("gold_answer").is_not_null()).then(correct).alias("is_correct")


def _weight(weights: Mapping[str, int] | None) -> list[pl.Expr]:
    """Column `weight`; none if all votes count the same."""
    if weights is None:
        return []
    return [pl.col("generation").replace_strict(weights, return_dtype=pl.Int64).alias("weight")]


def _winners(rows: pl.LazyFrame, tie: Tie, weight: pl.Expr) -> pl.LazyFrame:
    """Winners of the questions with a voter; `weight` is the sum of the votes for an answer.

    Returns question_id, winner, vote_count, weight, second_weight, total_weight, num_tied.
    """
    # Most weight first. Among equal ones the log-probability, if asked for, then who came first:
    # the order is complete, so that the winner never depends on the order of the rows.
    order = ["weight", "first_idx"]
    if tie == "logprob":
        order.insert(1, "best_logprob")
    descending = [name != "first_idx" for name in order]
    # One row per question and answer: its votes, their weight, first_idx, best_logprob.
    counts = (
        rows.filter(pl.col("answer").is_not_null())
        .group_by("question_id", "answer")
        .agg(
            pl.len().alias("vote_count"),
            weight.cast(pl.Int64).alias("weight"),
            pl.col("sample_idx").min().alias("first_idx"),
            pl.col("cumulative_logprob").max().alias("best_logprob"),
        )
        .sort(["question_id", *order], descending=[False, *descending], nulls_last=True)
    )
    # One row per question. Groups keep the order above, so the first answer is the winner and the
    # second one is the runner-up, null if all agree.
    return counts.group_by("question_id").agg(
        pl.col("answer").first().alias("winner"),
        pl.col("vote_count").first(),
        pl.col("weight").first(),
        pl.col("weight").get(1, null_on_oob=True).alias("second_weight"),
        pl.col("weight").sum().alias("total_weight"),
        (pl.col("weight") == pl.col("weight").first()).sum().alias("num_tied"),
    )


def _with_composed(
    totals: pl.LazyFrame, rows: pl.LazyFrame, compose: Compose | None
) -> pl.LazyFrame:
    """Replace the winner of each tie by the answer that `compose` makes."""
    if compose is None:
        return totals
    tied = totals.filter(pl.col("num_tied") > 1).select("question_id")
    answers = (
        rows.drop_nulls("answer")
        .join(tied, on="question_id", how="semi")
        .sort("sample_idx")
        .group_by("question_id")
        .agg("answer")
        .collect()
    )
    made = [compose(of_one) for of_one in answers["answer"].to_list()]
    composed = answers.select("question_id", composed=pl.Series(made, dtype=pl.String))
    joined = totals.join(composed.lazy(), on="question_id", how="left")
    winner = pl.when(pl.col("num_tied") > 1).then("composed").otherwise("winner")
    return joined.with_columns(winner=winner).drop("composed")


def _abstained(tie: Tie) -> pl.Expr:
    no_voter = pl.col("num_valid") == 0
    if tie == "parts":
        return pl.col("winner").is_null()
    return no_voter | pl.col("is_tie") if tie == "abstain" else no_voter


def _mean(values: pl.Series) -> float | None:
    known = values.drop_nulls().cast(pl.Float64)
    return float(known.sum()) / known.len() if known.len() else None


def _refuse_students(rationales: pl.DataFrame) -> None:
    num_students = rationales.filter(pl.col("source").cast(pl.String) == "student").height
    if num_students:
        msg = (
            f"A vote must count teacher or imported rationales; got {num_students} rows of a "
            "student. Pass only the teacher's generation."
        )
        raise DataError(msg)


def _log_left_out(num_rows: int) -> None:
    if num_rows:
        logger.info("Ignored %d rationales of questions that are not in this run", num_rows)


def pseudo_label_precision(votes: pl.DataFrame) -> pl.DataFrame:
    """Precision and coverage of majorities, by the least share of voters that agree.

    Args:
        votes: Table `votes`.

    Returns:
        By tenths of agreement: min_agreement; coverage (decided votes with at least this agreement
        / all votes); precision (correct ones among those with gold; null if there are none); and
        num_questions.
    """
    rows = []
    decided = votes.filter(pl.col("majority_answer").is_not_null())
    for tenth in range(11):
        # Rounding: a share of 3/10 may be stored as 0.29999, and must count for 0.3.
        kept = decided.filter(pl.col("agreement") >= tenth / 10 - 1e-9)
        known = kept["is_majority_correct"].drop_nulls()
        precision = None if known.is_empty() else float(known.sum()) / len(known)
        coverage = kept.height / votes.height if votes.height else None
        rows.append((tenth / 10, coverage, precision, kept.height))
    schema = {
        "min_agreement": pl.Float64,
        "coverage": pl.Float64,
        "precision": pl.Float64,
        "num_questions": pl.Int64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")
