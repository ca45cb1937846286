"""Table `scores` of a round: the loss's inputs for each rationale."""

import polars as pl

from data_schemas import Scores
from qcrd_core.run.context import RunContext


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
    frame = scored.with_columns(
        pl.lit(round_, pl.Int32).alias("round"), weight.fill_null(1.0).alias("rationale_weight")
    ).select(Scores.column_names())
    context.store.write_table(context.paths.scores(round_), frame, Scores)
