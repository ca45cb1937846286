"""What self-consistency decided, a row a question."""

from collections.abc import Mapping
from typing import Any, ClassVar

import dataframely as dy

from data_schemas.table import Table


class Votes(Table):
    """Majority vote over the canonical answers of one question's teacher samples."""

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
        nullable=True, description="Canonical winner; null when the vote abstained."
    )
    num_samples = dy.Int32(min=1, description="Samples of the question, failures included.")
    num_valid = dy.Int32(min=0, description="Samples with an answer: the voters.")
    vote_count = dy.Int32(min=0, description="Votes of the answer with most votes.")
    agreement = dy.Float64(
        nullable=True, min=0, max=1, description="vote_count / num_valid; null without voters."
    )
    margin = dy.Float64(
        nullable=True,
        min=0,
        max=1,
        description="(first - second) / num_valid; null without voters.",
    )
    is_tie = dy.Bool(description="Two answers or more share the most votes.")
    abstained = dy.Bool(description="No majority: no voter, or a tie under tie=abstain.")
    gold_answer = dy.String(nullable=True, description="Canonical gold answer, if there is one.")
    is_majority_correct = dy.Bool(
        nullable=True, description="Majority equals gold; null without either."
    )
