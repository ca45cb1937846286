"""Table `scores` of a round: the loss's inputs for each rationale."""

import polars as pl

from data_schemas import Scores
from qcrd_core.run.context import RunContext

_SMALLEST_MEAN = 1e-6
"""Bounds the scale when a discriminator gives a whole polarity scores of 0."""


def write_scores(context: RunContext, round_: int, scored: pl.DataFrame) -> None:
    """Write a round's scores; if they exist, the round has been scored.

    Args:
        context: The run.
        round_: The round.
        scored: Candidates with quality_score; null if the run has no discriminator.

    Raises:
        StoreError: If the store cannot write them.
    """
    # What equations 6 and 7 multiply with: s of a positive, 1 - s of a negative, 1 without scores.
    score = pl.col("quality_score")
    weight = pl.when(pl.col("polarity") == "positive").then(score).otherwise(1 - score)
    if context.config.discriminator.fit == "cross_fit":
        # Otherwise s < 1 would shrink the rationale term against the label's.
        weight /= weight.mean().over("polarity").clip(lower_bound=_SMALLEST_MEAN)
    frame = scored.with_columns(
        pl.lit(round_, pl.Int32).alias("round"), weight.fill_null(1.0).alias("rationale_weight")
    ).select(Scores.column_names())
    context.store.write_table(context.paths.scores(round_), frame, Scores)
