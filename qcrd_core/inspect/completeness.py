"""Whether the tables of a complete run still hold what they held when it ended.

A part that is gone leaves no damage to find: what remains is readable. Tables that were made from
each other tell: a vote counts its samples, every round leaves its numbers, and every validation and
test question has an answer.
"""

from collections.abc import Iterator, Mapping

import polars as pl

from data_schemas import Predictions, Questions, Votes
from qcrd_core.run.paths import RunPaths
from qcrd_core.run.records import Result, read_run_config
from qcrd_core.store.store import Store

Counts = Mapping[str, int]
"""Stored rationales of each question."""


def missing_from_run(
    store: Store, paths: RunPaths, stored: Counts | None
) -> Iterator[tuple[str, str]]:
    """Find what is missing in a complete run whose files can all be read.

    Args:
        store: The store.
        paths: The run.
        stored: Rationales of the generation that it voted on; None if that is not known.

    Yields:
        Path and problem.

    Raises:
        QcrdError: If a file cannot be read.
    """
    config, result = read_run_config(store, paths.run_id), store.read_json(paths.result, Result)
    for round_ in range(config.training.num_rounds):
        for stage in ("train", "validation"):
            part = paths.metrics_part(stage, round_)
            if not store.exists(part):
                yield part, "is missing"
    questions = store.read_table(paths.questions, Questions)
    for split, rounds in (
        ("validation", range(config.training.num_rounds)),
        ("test", (result.round,)),
    ):
        asked = set(questions.filter(pl.col("split") == split)["question_id"])
        for round_ in rounds if asked else ():
            rel = paths.predictions(split, round_)
            if not store.exists(rel):
                yield rel, "is missing"
                continue
            left = asked - set(store.read_table(rel, Predictions)["question_id"])
            if left:
                yield rel, f"lacks {len(left):,} {split} questions (first: {min(left)})"
    if stored is not None:
        yield from _unbacked_votes(store, paths, stored)


def _unbacked_votes(store: Store, paths: RunPaths, stored: Counts) -> Iterator[tuple[str, str]]:
    votes = store.read_table(paths.votes, Votes).select("question_id", "num_samples").iter_rows()
    lost = {
        question_id: num_samples - stored.get(question_id, 0)
        for question_id, num_samples in votes
        if num_samples > stored.get(question_id, 0)
    }
    if lost:
        yield (
            paths.votes,
            f"counts {sum(lost.values()):,} rationales of {len(lost):,} questions that are no "
            f"longer in the store (first: {min(lost)})",
        )
