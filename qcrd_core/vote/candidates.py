"""The polarity of rationales: positive, negative or undecided, and what training reads of it.

    decided = decide_polarity(rationales, votes, positives="majority")    once, at the vote
    rows, counts = candidates(context, round_)                            each round reads it

Source: arXiv 2405.13014, figure 2b and the section on self-adversarial negatives.
"""

import logging
from typing import Literal

import polars as pl

from data_schemas import Condensed, Polarity, Rationales, Votes
from qcrd_core.run.context import RunContext
from qcrd_core.vote.majority import is_correct, references
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
    are_ties_composed: bool = False,
) -> pl.DataFrame:
    """Decide which rationales the student is pulled towards and which it is pushed away from.

    A rationale is positive if its answer equals the reference (the majority, the gold answer, or
    both), and negative if it differs. A whole text without an answer is always negative; one that
    was cut at the length limit, or that is only a thought, might have had any answer, so it is
    undecided. If the reference
    is missing (the vote abstained, or there is no gold answer), a rationale with an answer neither
    agrees nor disagrees: it is undecided, so the student is not pushed away from either side of a
    tie. With majority_and_gold, one known disagreement makes a negative. With first_sample, nothing
    is compared: the first completed sample of a question is positive and the rest is undecided, as
    if the teacher had been asked once.

    Args:
        rationales: Table `rationales`, the rows of the vote.
        votes: Columns question_id, majority_answer, gold_answer and is_tie, as table `votes` has
            them; rationales of other questions are dropped.
        positives: The reference.
        keep_marks: question_id and sample_idx of rationales that a curator marked as positive;
            a mark overrides the reference.
        are_ties_composed: Whether the majority of a tie is made of parts (`voting.tie=parts`).
            Nobody may have given it, so a rationale that differs from it is undecided.

    Returns:
        Table `polarity`, in the order of `rationales`, without failed rows; their number is logged.
    """
    reference = votes.lazy().select(
        "question_id",
        "majority_answer",
        "gold_answer",
        is_composed=pl.col("is_tie") & are_ties_composed,
    )
    marked = pl.LazyFrame(schema={"question_id": pl.String, "sample_idx": pl.Int32})
    if keep_marks is not None:
        marked = keep_marks.lazy()
    frame = (
        rationales.lazy()
        .select(
            "question_id",
            "source",
            "sample_idx",
            "answer",
            is_cut=(
                (pl.col("finish_reason") == "length") | (pl.col("status") == "thought_only")
            ).fill_null(value=False),
            has_text=pl.col("status") != "failed",
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
        "%d rationales decided | %d undecided (no reference, or cut) | %d failed",
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
    is_same = pl.col("answer") == pl.col("majority_answer")
    by_majority = pl.when(is_same | ~pl.col("is_composed")).then(is_same)
    by_gold = pl.col("answer") == pl.col("gold_answer")
    agrees = {
        "majority": by_majority,
        "gold": by_gold,
        # Kleene logic: null & false is false, null & true stays null.
        "majority_and_gold": by_majority & by_gold,
    }[positives]
    silent = pl.when("is_cut").then(None).otherwise(False)
    return pl.when(pl.col("answer").is_not_null()).then(agrees).otherwise(silent)


def training_labels(context: RunContext) -> pl.DataFrame:
    """The label that the student learns for each training question.

    Args:
        context: The run, after the vote.

    Returns:
        question_id, question, messages, label. The label is the gold target or the gold answer;
        with `data.label=majority` it is the right answer that was sent for a captured question, or
        else the majority answer (of a verifier, as the first sample that agrees writes it), and
        questions with neither are dropped. With
        `student.target=rationale_and_label`, the first positive rationale, if there is one, comes
        before the label.
    """
    questions = context.read_questions("train")
    label = pl.coalesce("gold_target", "gold_answer")
    if context.config.data.label == "majority":
        questions = questions.join(_majorities(context), on="question_id", how="left")
        label = pl.col("majority_answer")
    columns = ("question_id", "question", "messages")
    labels = questions.select(*columns, label.alias("label")).drop_nulls("label")
    if context.config.student.target == "label":
        return labels
    text = _ending_in(pl.lit(context.read_spec().answer.marked), "label")
    rationales = _first_positives(context)
    joined = labels.join(rationales, on="question_id", how="left", maintain_order="left")
    return joined.select(*columns, text.alias("label"))


def _majorities(context: RunContext) -> pl.DataFrame:
    """question_id and majority_answer, as a student learns it; an answer that was sent is first."""
    votes, feedback = context.store.read_table(context.paths.votes, Votes), context.read_feedback()
    answers = references(votes, feedback).select("question_id", "majority_answer").drop_nulls()
    if not context.read_spec().answer.is_learnt_as_written:
        return answers
    samples = read_rationales(context, (*_KEYS, "answer", "answer_raw")).drop_nulls("answer_raw")
    first = samples.sort("sample_idx").unique(["question_id", "answer"], keep="first")
    written = answers.join(
        first.select("question_id", "answer", "answer_raw"),
        left_on=["question_id", "majority_answer"],
        right_on=["question_id", "answer"],
        how="left",
    )
    # No sample need have written the answer that a person sent.
    is_sent = pl.col("question_id").is_in(feedback["question_id"].to_list())
    sent = pl.when(is_sent).then("majority_answer")
    learnt = written.select("question_id", majority_answer=pl.coalesce("answer_raw", sent))
    return learnt.drop_nulls()


def _ending_in(marker: pl.Expr, answer: str) -> pl.Expr:
    """A rationale, the marker and an answer, as the student learns to write them."""
    marked = pl.concat_str(marker, answer, separator=" ")  # null without an answer
    return pl.concat_str("rationale", marked, separator=" ", ignore_nulls=True)


def candidates(context: RunContext, round_: int) -> tuple[pl.DataFrame, dict[str, int]]:
    """Positive and negative rationales that a round may learn from.

    Args:
        context: The run, after the vote and with the round's negatives.
        round_: The round.

    Returns:
        The columns of `CANDIDATE_COLUMNS`, and counts: positives and negatives by source; dropped
        student rationales with a correct answer, or cut before their answer; and dropped rationales
        without a text. With `student.explain_target=rationale_and_answer`, a rationale ends with
        its own answer.
    """
    questions = context.read_questions("train")
    teacher = kept_rationales(context)
    student, dropped = _student_rows(context, round_, questions)
    rows = pl.concat([teacher, student.select(teacher.columns)], how="vertical_relaxed")
    with_text = (
        rows.filter(~_is_blank())
        .with_columns(as_learnt(context))
        .join(questions.select("question_id", "question"), on="question_id", how="inner")
    )
    with_text = with_text.select(CANDIDATE_COLUMNS)
    counts = {**_counts(with_text), **dropped}
    counts["num_rationales_without_text"] = rows.height - with_text.height
    return with_text, counts


def kept_rationales(context: RunContext) -> pl.DataFrame:
    """The teacher's rationales that rounds may learn from.

    Args:
        context: The run, after the vote.

    Returns:
        Table `polarity` of the positives and, with `negatives.teacher_minority`, the negatives;
        with rationale, answer and answer_raw. The rationale is the rewrite, if table `condensed`
        has one.
    """
    teacher = _teacher_rows(context)
    if context.config.negatives.teacher_minority:
        return teacher
    return teacher.filter(pl.col("polarity") == "positive")


def as_learnt(context: RunContext) -> pl.Expr:
    """Column `rationale` as the student learns it: with `rationale_and_answer`, and its answer."""
    if context.config.student.explain_target == "rationale":
        return pl.col("rationale")
    answer = context.read_spec().answer
    written = "answer_raw" if answer.is_learnt_as_written else "answer"
    return _ending_in(pl.lit(answer.marked), written).alias("rationale")


def _is_blank() -> pl.Expr:
    return pl.col("rationale").is_null() | (pl.col("rationale").str.strip_chars() == "")


def _teacher_rows(context: RunContext) -> pl.DataFrame:
    """The teacher's positive and negative rationales with their texts."""
    texts = read_rationales(context, (*_KEYS, "rationale", "answer", "answer_raw"))
    decided = (
        context.store.read_table(context.paths.polarity, Polarity)
        .filter(pl.col("polarity") != "undecided")
        .with_columns(pl.col("source", "polarity").cast(pl.String))
    )
    rows = decided.join(texts, on=_KEYS, how="left", maintain_order="left")
    if not context.store.exists(context.paths.condensed):
        return rows
    condensed = context.store.read_table(context.paths.condensed, Condensed)
    shorter = condensed.drop_nulls("rationale").select(*_KEYS, shorter="rationale")
    rows = rows.join(shorter, on=_KEYS, how="left", maintain_order="left")
    return rows.with_columns(rationale=pl.coalesce("shorter", "rationale")).drop("shorter")


def _first_positives(context: RunContext) -> pl.DataFrame:
    """question_id and rationale of the positive with the lowest sample_idx."""
    positive = _teacher_rows(context).filter(pl.col("polarity") == "positive")
    with_text = positive.drop_nulls("rationale").sort("sample_idx")
    first = with_text.unique("question_id", keep="first", maintain_order=True)
    return first.select("question_id", "rationale")


def _student_rows(
    context: RunContext, round_: int, questions: pl.DataFrame
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The student's rationales with their polarity, and counts of those that are dropped."""
    verify = context.config.negatives.verify
    rows = context.store.read_table(context.paths.negatives(round_), Rationales)
    gold = questions.select("question_id", "gold_answer")
    reference = pl.col("gold_answer")
    if context.config.data.label == "majority":
        votes = context.store.read_table(context.paths.votes, Votes)
        answers = references(votes, context.read_feedback()).select(
            "question_id", "majority_answer"
        )
        gold = gold.join(answers, "question_id", "left")
        reference = pl.col("majority_answer")
    # Without an answer or a label, `==` is null, and the rationale counts as not correct.
    is_right = (pl.col("answer") == reference).fill_null(value=False)
    promoted = pl.when(is_right & (verify == "promote")).then(pl.lit("positive"))
    labelled = rows.join(gold, on="question_id", how="inner").with_columns(
        pl.col("source").cast(pl.String),
        polarity=promoted.otherwise(pl.lit("negative")),
        is_correct=is_correct(),
    )
    is_cut = pl.col("answer").is_null() & (pl.col("finish_reason") == "length")
    whole = labelled.filter(~is_cut)
    learnt_from = whole.filter(~is_right) if verify == "drop" else whole
    return learnt_from, {
        "num_student_right_dropped": whole.height - learnt_from.height,
        "num_student_cut_dropped": labelled.height - whole.height,
    }


def _counts(rows: pl.DataFrame) -> dict[str, int]:
    positive, student = pl.col("polarity") == "positive", pl.col("source") == "student"
    return {
        "num_teacher_positives": rows.filter(positive & ~student).height,
        "num_teacher_negatives": rows.filter(~positive & ~student).height,
        "num_student_positives": rows.filter(positive & student).height,
        "num_student_negatives": rows.filter(~positive & student).height,
    }
