"""Result of self-consistency for each question."""

from collections.abc import Mapping
from typing import Any, ClassVar

from data_schemas.light import dy
from data_schemas.table import Table


class Votes(Table):
    """One row per question: the majority vote over the canonical answers of its samples."""

    table_name: ClassVar[str] = "votes"
    version: ClassVar[int] = 1
    example: ClassVar[Mapping[str, Any]] = {
        "question_id": "train-0017",
        "majority_answer": "11",
        "num_samples": 5,
        "num_valid": 4,
        "vote_count": 3,
        "agreement": 0.75,
        "margin": 0.5,
        "is_tie": False,
        "abstained": False,
        "gold_answer": "11",
        "is_majority_correct": True,
    }

    question_id = dy.String(primary_key=True, min_length=1, description="Foreign key: questions.")
    majority_answer = dy.String(
        nullable=True, description="Canonical majority answer; null if the vote abstained."
    )
    num_samples = dy.Int32(min=1, description="Number of samples, including failures.")
    num_valid = dy.Int32(min=0, description="Number of samples with an answer, which vote.")
    vote_count = dy.Int32(
        min=0, description="Number of votes for the answer that has the most, by weight."
    )
    agreement = dy.Float64(
        nullable=True,
        min=0,
        max=1,
        description="Share of the votes for that answer, by weight: vote_count / num_valid if all "
        "count the same; null without voters.",
    )
    margin = dy.Float64(
        nullable=True,
        min=0,
        max=1,
        description="Share of the most votes minus that of the second most; null without voters.",
    )
    is_tie = dy.Bool(description="Whether several answers share the most votes, by weight.")
    abstained = dy.Bool(
        description="Whether there is no majority: no voter, or a tie under tie=abstain."
    )
    gold_answer = dy.String(nullable=True, description="Canonical gold answer, if there is one.")
    is_majority_correct = dy.Bool(
        nullable=True,
        description="Whether the majority answer equals the gold answer; null without either.",
    )
