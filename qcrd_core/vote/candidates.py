"""The polarity of rationales: positive, negative or undecided, and what training reads of it.

    decided = decide_polarity(rationales, votes, positives="majority")    once, at the vote
    rows, counts = candidates(context, round_)                            each round reads it

Source: arXiv 2405.13014, figure 2b and the section on self-adversarial negatives.
"""

import logging
from typing import Literal

import polars as pl

from data_schemas import Polarity, Rationales, Votes
from qcrd_core.run.context import RunContext
from qcrd_core.vote.majority import is_correct
from qcrd_core.vote.rationales import read_rationales

logger = logging.getLogger(__name__)

Positives = Literal["majority", "gold", "majority_and_gold", "first_sample"]

CANDIDATE_COLUMNS = (
    "question_id",
    "question",
    "source",
    "sample_idx",
    "polarity",
    "is_correct",
    "rationale",
)

_KEYS = ("question_id", "sample_idx")
_POLARITIES = ("positive", "negative", "undecided")


def decide_polarity(
    rationales: pl.DataFrame,
    votes: pl.DataFrame,
    positives: Positives,
    *,
    keep_marks: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Decide which rationales the student is pulled towards and which it is pushed away from.

    A rationale is positive if its answer equals the reference (the majority, the gold answer, or
    both), and negative if it differs. A text without an answer is always negative. If the reference
    is missing (the vote abstained, or there is no gold answer), a rationale with an answer neither
    agrees nor disagrees: it is undecided, so the student is not pushed away from either side of a
    tie. With majority_and_gold, one known disagreement makes a negative. With first_sample, nothing
    is compared: the first completed sample of a question is positive and the rest is undecided, as
    if the teacher had been asked once.

    Args:
        rationales: Table `rationales`, the rows of the vote.
        votes: Table `votes`; rationales of other questions are dropped.
        positives: The reference.
        keep_marks: question_id and sample_idx of rationales that a curator marked as positive;
            a mark overrides the reference.

    Returns:
        Table `polarity`, in the order of `rationales`, without failed rows; their number is logged.
    """
    reference = votes.lazy().select("question_id", "majority_answer", "gold_answer")
    marked = pl.LazyFrame(schema={"question_id": pl.String, "sample_idx": pl.Int32})
    if keep_marks is not None:
        marked = keep_marks.lazy()
    frame = (
        rationales.lazy()
        .select(
            "question_id", "source", "sample_idx", "answer", has_text=pl.col("status") != "failed"
        )
        .join(reference, on="question_id", how="inner", maintain_order="left")
        .join(
            marked.with_columns(is_marked=pl.lit(value=True)),
            on=list(_KEYS),
            how="left",
            maintain_order="left",
        )
        .with_columns(agrees=pl.when("is_marked").then(True).otherwise(_agrees(positives)))
        .select(
            "question_id",
            pl.col("source").cast(pl.String).cast(pl.Enum(("teacher", "imported"))),
            "sample_idx",
            "has_text",
            polarity=pl.when("agrees")
            .then(pl.lit("positive"))
            .when(pl.col("agrees").is_null())
            .then(pl.lit("undecided"))
            .otherwise(pl.lit("negative"))
            .cast(pl.Enum(_POLARITIES)),
            is_correct=is_correct(),
        )
        .collect()
    )
    completed = frame.filter("has_text").drop("has_text")
    num_undecided = completed.filter(pl.col("polarity") == "undecided").height
    logger.info(
        "%d rationales decided | %d undecided (no reference) | %d failed",
        completed.height - num_undecided,
        num_undecided,
        frame.height - completed.height,
    )
    return completed


def _agrees(positives: Positives) -> pl.Expr:
    """Whether a rationale agrees with the reference; null if there is nothing to agree with."""
    if positives == "first_sample":
        completed = pl.col("sample_idx").filter("has_text")
        first = pl.col("sample_idx") == completed.min().over("question_id")
        return pl.when(first).then(True)
    by_majority = pl.col("answer") == pl.col("majority_answer")
    by_gold = pl.col("answer") == pl.col("gold_answer")
    agrees = {
        "majority": by_majority,
        "gold": by_gold,
        # Kleene logic: null & false is false, null & true stays null.
        "majority_and_gold": by_majority & by_gold,
    }[positives]
    return pl.when(pl.col("answer").is_not_null()).then(agrees).otherwise(False)


def training_labels(context: RunContext) -> pl.DataFrame:
    """The label that the student learns for each training question.

    Args:
        context: The run, after the vote.

    Returns:
        question_id, question, label. The label is the gold target or the gold answer; with
        `data.label=majority` it is the majority answer, and questions without a majority are
        dropped. With `student.target=rationale_and_label`, the first positive rationale, if there
        is one, comes before the label.
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


def candidates(context: RunContext, round_: int) -> tuple[pl.DataFrame, dict[str, int]]:
    """Positive and negative rationales that a round may learn from.

    Args:
        context: The run, after the vote and with the round's negatives.
        round_: The round.

    Returns:
        The columns of `CANDIDATE_COLUMNS`, and counts: positives and negatives by source, dropped
        student rationales with a correct answer, and dropped rationales without a text.
    """
    questions = context.read_questions("train")
    teacher = _teacher_rows(context)
    if not context.config.negatives.teacher_minority:
        teacher = teacher.filter(pl.col("polarity") == "positive")
    student, num_right = _student_rows(context, round_, questions)
    rows = pl.concat([teacher, student.select(teacher.columns)], how="vertical_relaxed")
    blank = pl.col("rationale").is_null() | (pl.col("rationale").str.strip_chars() == "")
    with_text = rows.filter(~blank).join(
        questions.select("question_id", "question"), on="question_id", how="inner"
    )
    counts = _counts(with_text)
    counts["num_student_right_dropped"] = num_right
    counts["num_rationales_without_text"] = rows.height - with_text.height
    return with_text, counts


def _teacher_rows(context: RunContext) -> pl.DataFrame:
    """The teacher's positive and negative rationales with their texts."""
    texts = read_rationales(context, (*_KEYS, "rationale"))
    decided = (
        context.store.read_table(context.paths.polarity, Polarity)
        .filter(pl.col("polarity") != "undecided")
        .with_columns(pl.col("source", "polarity").cast(pl.String))
    )
    return decided.join(texts, on=_KEYS, how="left", maintain_order="left")


def _first_positives(context: RunContext) -> pl.DataFrame:
    """question_id and rationale of the positive with the lowest sample_idx."""
    positive = _teacher_rows(context).filter(pl.col("polarity") == "positive")
    with_text = positive.drop_nulls("rationale").sort("sample_idx")
    first = with_text.unique("question_id", keep="first", maintain_order=True)
    return first.select("question_id", "rationale")


def _student_rows(
    context: RunContext, round_: int, questions: pl.DataFrame
) -> tuple[pl.DataFrame, int]:
    """The student's rationales with their polarity, and the number of dropped correct ones."""
    verify = context.config.negatives.verify
    rows = context.store.read_table(context.paths.negatives(round_), Rationales)
    gold = questions.select("question_id", "gold_answer")
    reference = pl.col("gold_answer")
    if context.config.data.label == "majority":
        votes = context.store.read_table(context.paths.votes, Votes)
        gold = gold.join(votes.select("question_id", "majority_answer"), "question_id", "left")
        reference = pl.col("majority_answer")
    # Without an answer or a label, `==` is null, and the rationale counts as not correct.
    is_right = (pl.col("answer") == reference).fill_null(value=False)
    promoted = pl.when(is_right & (verify == "promote")).then(pl.lit("positive"))
    labelled = rows.join(gold, on="question_id", how="inner").with_columns(
        pl.col("source").cast(pl.String),
        polarity=promoted.otherwise(pl.lit("negative")),
        is_correct=is_correct(),
    )
    learnt_from = labelled.filter(~is_right) if verify == "drop" else labelled
    return learnt_from, labelled.height - learnt_from.height


def _counts(rows: pl.DataFrame) -> dict[str, int]:
    positive, student = pl.col("polarity") == "positive", pl.col("source") == "student"
    return {
        "num_teacher_positives": rows.filter(positive & ~student).height,
        "num_teacher_negatives": rows.filter(~positive & ~student).height,
        "num_student_positives": rows.filter(positive & student).height,
        "num_student_negatives": rows.filter(~positive & student).height,
    }
