"""Votes over a run's rationales, and decides once which are positive."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from data_schemas import Polarity, Votes
from qcrd_core.errors import DataError, StoreError
from qcrd_core.evaluation import scores_of_parts
from qcrd_core.run.context import RunContext, timed
from qcrd_core.vote.candidates import decide_polarity
from qcrd_core.vote.majority import (
    VOTE_COLUMNS,
    Compose,
    references,
    summarize_votes,
    vote,
    vote_summary,
)
from qcrd_core.vote.parts import compose
from qcrd_core.vote.rationales import read_rationales
from qcrd_core.vote.weights import UNIT, WEIGHT_COLUMNS, teacher_numbers, vote_weights


def vote_rationales(context: RunContext) -> dict[str, float | None]:
    """Take the majority vote over the run's rationales; write tables `polarity` and `votes`.

    If the run has several teachers, their votes are weighted by `voting.weights`.

    Args:
        context: The run.

    Returns:
        The numbers of `vote_summary`; with `scores_of_parts` of the majorities.

    Raises:
        DataError: If no rationale has a readable answer, or none is positive, so that there is
            nothing to learn from.
    """
    questions = context.read_questions("train")
    has_several = bool(context.config.teacher.others)
    columns = (*VOTE_COLUMNS, *WEIGHT_COLUMNS) if has_several else VOTE_COLUMNS
    rationales = read_rationales(context, columns)
    tie, answer = context.config.voting.tie, context.read_spec().answer

    def composed(answers: Sequence[str]) -> str | None:
        return compose(answers, answer)

    with timed(context, "vote"):
        weights = None
        if has_several:
            weights = _weigh_teachers(context, rationales, questions, composed)
        votes = vote(rationales, questions, tie, composed, weights)
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


def _weigh_teachers(
    context: RunContext, rationales: pl.DataFrame, questions: pl.DataFrame, compose_: Compose
) -> dict[str, int] | None:
    """Store how right each teacher is, and what the unweighted vote would have been; the weights.

    Metrics of a teacher begin with its place, from 0.
    """
    voting, names = context.config.voting, [each.generation for each in context.teachers]
    found = teacher_numbers(rationales, questions, names, voting.tie, compose_)
    weights = vote_weights(found, voting.weights)
    unweighted = vote(rationales, questions, voting.tie, compose_)
    numbers = {
        f"unweighted_{name}": value
        for name, value in summarize_votes(unweighted).items()
        if name in {"majority_accuracy", "num_abstained"}
    }
    for place, row in enumerate(found.iter_rows(named=True)):
        generation = row.pop("generation")
        weight = 1.0 if weights is None else weights[generation] / UNIT
        numbers |= {f"{place} {name}": value for name, value in {**row, "weight": weight}.items()}
    context.write_metrics("teachers", -1, numbers)
    return weights


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
