"""Batches of the discriminator: balanced, and within questions where the loss compares there."""

import polars as pl
import pytest

from qcrd_core.config.models import DiscriminatorSection
from qcrd_core.discriminator.pairs import PairSource

ROWS = pl.DataFrame(
    [
        ("q0", "one two", "positive"),
        ("q0", "one three", "positive"),
        ("q0", "bad guess", "negative"),
        ("q1", "four five", "positive"),
        ("q2", "lone wrong", "negative"),
    ],
    schema=["question", "rationale", "polarity"],
    orient="row",
)
NEGATIVES = [("q0", "bad guess"), ("q2", "lone wrong")]


def _source(loss, rows=ROWS, seed=0):
    config = DiscriminatorSection(model={"type": "scratch"}, loss=loss)
    return PairSource(rows, config, "<mask>", seed)


@pytest.mark.parametrize("loss", ["bce", "ratio", "infonce"])
def test_draws_are_balanced_and_a_function_of_the_seed(loss):
    first, second, other = _source(loss), _source(loss), _source(loss, seed=1)
    drawn = [first.draw() for _ in range(20)]
    assert {(len(p.positives), len(p.negatives)) for p in drawn} == {(16, 16)}
    assert drawn == [second.draw() for _ in range(20)] != [other.draw() for _ in range(20)]


@pytest.mark.parametrize("loss", ["ratio", "infonce"])
def test_draws_within_questions_give_each_as_many_of_both_kinds(loss):
    source = _source(loss)
    for _ in range(50):
        pairs = source.draw()
        questions = [sorted(q for q, _ in side) for side in (pairs.positives, pairs.negatives)]
        assert questions[0] == questions[1]
        assert "q2" not in questions[0]


def test_draws_within_questions_take_real_negatives_before_corrupted_ones():
    source = _source("ratio")
    negatives = [pair for _ in range(50) for pair in source.draw().negatives]
    assert NEGATIVES[0] in negatives
    assert all(r != "four five" for q, r in negatives if q == "q1")


def test_source_without_positives_is_empty():
    assert _source("bce", ROWS.filter(pl.col("polarity") == "negative")).is_empty
