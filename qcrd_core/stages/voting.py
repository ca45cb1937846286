"""Votes over a run's rationales, and decides once which are positive."""

from typing import Any

import polars as pl

from data_schemas import Polarity, Votes
from qcrd_core.errors import DataError, StoreError
from qcrd_core.evaluation import scores_of_parts
from qcrd_core.run.context import RunContext, timed
from qcrd_core.vote.candidates import decide_polarity
from qcrd_core.vote.majority import VOTE_COLUMNS, references, vote, vote_summary
from qcrd_core.vote.parts import compose
from qcrd_core.vote.rationales import read_rationales


def vote_rationales(context: RunContext) -> dict[str, float | None]:
    """Take the majority vote over the run's rationales; write tables `polarity` and `votes`.

    Args:
        context: The run.

    Returns:
        The numbers of `vote_summary`; with `scores_of_parts` of the majorities.

    Raises:
        DataError: If no rationale has a readable answer, or none is positive, so that there is
            nothing to learn from.
    """
    questions = context.read_questions("train")
    rationales = read_rationales(context, VOTE_COLUMNS)
    tie, answer = context.config.voting.tie, context.read_spec().answer
    with timed(context, "vote"):
        votes = vote(rationales, questions, tie, lambda answers: compose(answers, answer))
        numbers = vote_summary(votes, rationales, questions)
        majorities = votes.select("gold_answer", answer="majority_answer")
        numbers |= scores_of_parts(majorities, answer.kind, answer.labels)
    _check_answers(context, rationales)
    marked = context.read_marks("keep")
    positives = context.config.voting.positives
    right = references(votes, context.read_feedback())
    polarity = decide_polarity(
        rationales, right, positives, keep_marks=marked, are_ties_composed=tie == "parts"
    )
    if polarity.filter(pl.col("polarity") == "positive").is_empty():
        msg = (
            f"None of the {rationales.height} rationales is positive, so there is nothing to learn "
            f"from (voting.positives is {positives}, {numbers['num_abstained']} votes abstained). "
            "Raise teacher.num_samples, or set voting.tie=first."
        )
        raise DataError(msg)
    context.store.write_table(context.paths.polarity, polarity, Polarity)
    # Votes are written after the polarity: if votes exist, everything that rounds read exists.
    context.store.write_table(context.paths.votes, votes, Votes)
    context.write_metrics("vote", -1, numbers)
    context.write_metrics(
        "data",
        -1,
        {
            "num_rejected_by_curator": context.read_marks("reject").height,
            "num_kept_by_curator": marked.height,
        },
        part="curation",
    )
    return numbers


def check_votes(context: RunContext) -> None:
    """Check that the vote was taken, which implies that all samples are stored, and condensed.

    Args:
        context: The run.

    Raises:
        StoreError: If table `votes` or `polarity` is absent, or `condensed` with
            `teacher.condense`.
    """
    paths = context.paths
    needed = {paths.votes: "vote", paths.polarity: "vote"}
    if context.config.teacher.condense is not None:
        needed[paths.condensed] = "condensed rationales"
    absent = next((what for table, what in needed.items() if not context.store.exists(table)), None)
    if absent is not None:
        msg = (
            f"Run {paths.run_id} has no {absent} yet ({context.store}). Start `sample-teacher` "
            "with the same settings first, or `distill`."
        )
        raise StoreError(msg)


def _check_answers(context: RunContext, rationales: pl.DataFrame) -> None:
    if rationales["answer"].null_count() < rationales.height:
        return
    failed: Any = rationales["error"].drop_nulls().head(1).to_list()
    seen = f" The first error is: {failed[0]}." if failed else ""
    spec = context.read_spec()
    marker = f" after {spec.answer.marker!r}" if spec.answer.marker else ""
    msg = (
        f"None of the {rationales.height} rationales ends in an answer of kind {spec.answer.kind}"
        f"{marker} ({spec.name}).{seen} The samples are kept. Compare the prompt, which `qcrd run "
        "--dry-run` shows, with `answer` in the data set's file."
    )
    raise DataError(msg)
