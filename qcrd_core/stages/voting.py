"""Vote, and turn votes into what training reads: labels, and candidate rationales of a round."""

from typing import Any

import polars as pl

from data_schemas import Rationales, Votes
from qcrd_core.errors import DataError, StoreError
from qcrd_core.run.context import RunContext
from qcrd_core.stages.sampling import read_rationales
from qcrd_core.stages.timing import timed
from qcrd_core.vote.majority import VOTE_COLUMNS, polarity, vote, vote_summary


def vote_rationales(context: RunContext) -> dict[str, float | None]:
    """Take the majority vote over the run's rationales and write table `votes`.

    Args:
        context: The run.

    Returns:
        What `vote_summary` counts.

    Raises:
        DataError: If no rationale has a readable answer, or none is positive: there would be
            nothing to learn from.
    """
    questions = context.read_questions("train")
    rationales = read_rationales(context, VOTE_COLUMNS)
    with timed(context, "vote"):
        votes = vote(rationales, questions, context.config.voting.tie)
        numbers = vote_summary(votes, rationales, questions)
    _check_answers(context, rationales)
    kept = context.read_marks("keep")
    positives = polarity(rationales, votes, context.config.voting.positives, kept=kept)
    if positives.filter(pl.col("polarity") == "positive").is_empty():
        msg = (
            f"At least one rationale must be positive; none of {rationales.height} is "
            f"(voting.positives is {context.config.voting.positives}, {numbers['num_abstained']} "
            "votes abstained). Raise teacher.num_samples or set voting.tie=first."
        )
        raise DataError(msg)
    context.store.write_table(context.paths.votes, votes, Votes)
    context.write_metrics("vote", -1, numbers)
    context.write_metrics(
        "data",
        -1,
        {
            "num_rejected_by_curator": context.read_marks("reject").height,
            "num_kept_by_curator": kept.height,
        },
        part="curation",
    )
    return numbers


def check_votes(context: RunContext) -> None:
    """Make sure that the vote was taken, and thus that all was sampled.

    Args:
        context: The run.

    Raises:
        StoreError: If table `votes` is not there.
    """
    if not context.store.exists(context.paths.votes):
        msg = (
            f"Training must find the votes of its run; {context.paths.run_id} has none "
            f"({context.store}). Start `sample-teacher` with the same settings first, or `distill`."
        )
        raise StoreError(msg)


def training_labels(context: RunContext) -> pl.DataFrame:
    """What the student learns as the answer of each training question.

    Args:
        context: The run, after the vote.

    Returns:
        question_id, question, label. The gold target or gold answer; with `data.label=majority` the
        majority answer, questions without one left out. With `student.target=rationale_and_label`
        the first positive rationale, if there is one, and the label after it.
    """
    questions = context.read_questions("train")
    label = pl.coalesce("gold_target", "gold_answer")
    if context.config.data.label == "majority":
        votes = context.store.read_table(context.paths.votes, Votes)
        answers = votes.select("question_id", "majority_answer")
        questions = questions.join(answers, on="question_id", how="left")
        label = pl.col("majority_answer")
    labels = questions.select("question_id", "question", label.alias("label")).drop_nulls("label")
    if context.config.student.target == "label":
        return labels
    marker = pl.lit(context.read_spec().answer.marked)
    text = pl.concat_str("rationale", marker, "label", separator=" ", ignore_nulls=True)
    rationales = _first_positives(context)
    joined = labels.join(rationales, on="question_id", how="left", maintain_order="left")
    return joined.select("question_id", "question", text.alias("label"))


def _first_positives(context: RunContext) -> pl.DataFrame:
    """question_id, rationale of the positive with the lowest sample_idx."""
    teacher = read_rationales(context)
    votes = context.store.read_table(context.paths.votes, Votes)
    kept = context.read_marks("keep")
    decided = polarity(teacher, votes, context.config.voting.positives, kept=kept)
    texts = teacher.select("question_id", "sample_idx", "rationale").drop_nulls("rationale")
    positive = decided.filter(pl.col("polarity") == "positive").join(
        texts, on=["question_id", "sample_idx"]
    )
    first = positive.sort("sample_idx").unique("question_id", keep="first", maintain_order=True)
    return first.select("question_id", "rationale")


def candidates(context: RunContext, round_: int) -> tuple[pl.DataFrame, dict[str, int]]:
    """Positive and negative rationales that a round may learn from.

    Args:
        context: The run, after the vote and with the round's negatives.
        round_: The round.

    Returns:
        The columns of `qcrd_core.discriminator.score.CANDIDATE_COLUMNS`, and counts: positives and
        negatives by source; right ones of the student and rationales without a text that are left
        out.
    """
    config, questions = context.config, context.read_questions("train")
    teacher = read_rationales(context)
    votes = context.store.read_table(context.paths.votes, Votes)
    kept = context.read_marks("keep")
    decided = polarity(teacher, votes, config.voting.positives, kept=kept)
    if not config.negatives.teacher_minority:
        decided = decided.filter(pl.col("polarity") == "positive")
    texts = teacher.select("question_id", "sample_idx", "rationale")
    student, num_dropped = _student_rows(context, round_, questions, decided)
    rows = pl.concat([decided.join(texts, on=["question_id", "sample_idx"], how="left"), student])
    blank = pl.col("rationale").is_null() | (pl.col("rationale").str.strip_chars() == "")
    kept = rows.filter(~blank).join(
        questions.select("question_id", "question"), on="question_id", how="inner"
    )
    counts = _counts(kept)
    counts["num_student_right_dropped"] = num_dropped
    counts["num_rationales_without_text"] = rows.height - kept.height
    return kept, counts


def _student_rows(
    context: RunContext, round_: int, questions: pl.DataFrame, like: pl.DataFrame
) -> tuple[pl.DataFrame, int]:
    """The student's rationales with their polarity, and how many right ones are left out."""
    verify = context.config.negatives.verify
    rows = context.store.read_table(context.paths.negatives(round_), Rationales)
    gold = questions.select("question_id", "gold_answer")
    correct = pl.col("answer").eq_missing(pl.col("gold_answer"))
    reference = pl.col("gold_answer")
    if context.config.data.label == "majority":
        votes = context.store.read_table(context.paths.votes, Votes)
        gold = gold.join(votes.select("question_id", "majority_answer"), "question_id", "left")
        reference = pl.col("majority_answer")
    # No answer, or no label, is not right: `==` gives null there.
    is_right = (pl.col("answer") == reference).fill_null(value=False)
    polarity = pl.when(is_right & (verify == "promote")).then(pl.lit("positive"))
    labelled = rows.join(gold, on="question_id", how="inner").with_columns(
        polarity=polarity.otherwise(pl.lit("negative")).cast(like.schema["polarity"]),
        is_correct=pl.when(pl.col("gold_answer").is_not_null()).then(correct),
    )
    kept = labelled.filter(~is_right) if verify == "drop" else labelled
    return kept.select(*like.columns, "rationale"), labelled.height - kept.height


def _counts(kept: pl.DataFrame) -> dict[str, int]:
    positive, student = pl.col("polarity") == "positive", pl.col("source") == "student"
    return {
        "num_teacher_positives": kept.filter(positive & ~student).height,
        "num_teacher_negatives": kept.filter(~positive & ~student).height,
        "num_student_positives": kept.filter(positive & student).height,
        "num_student_negatives": kept.filter(~positive & student).height,
    }


def _check_answers(context: RunContext, rationales: pl.DataFrame) -> None:
    if rationales["answer"].null_count() < rationales.height:
        return
    failed: Any = rationales["error"].drop_nulls().head(1).to_list()
    seen = f"; the first error is: {failed[0]}" if failed else ""
    spec = context.read_spec()
    marker = f" after {spec.answer.marker!r}" if spec.answer.marker else ""
    msg = (
        f"A rationale must end in an answer of kind {spec.answer.kind}{marker}; none of "
        f"{rationales.height} does ({spec.name}){seen}. Compare the prompt with `answer` in the "
        "data set's file: `qcrd run --dry-run` shows the prompt."
    )
    raise DataError(msg)
