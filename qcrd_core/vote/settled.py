"""Stops asking about a question whose majority will hardly change any more.

    num_needed(rows, num_samples=10, bound=0.05)      samples that each question needs, in waves

The samples of a question are drawn in waves. After each, the chance that the leading answer would
no longer lead after all K samples decides whether the next wave is drawn. Whatever is left out has
the same seeds later, so a run without the setting samples only what is missing.

Source: Aggarwal et al. 2023, "Let's Sample Step by Step" (arXiv 2305.11860), section 3: the shares
of the two most frequent answers have a Beta posterior with a uniform prior. There sampling stops if
the leader's true share is probably the larger one; here, because K is fixed, if the leader will
probably lead among the K samples (the Beta-binomial predictive of the posterior).
"""

import math

import polars as pl

_FIRST, _STEP = 0.3, 0.2
"""Shares of K in the first wave and in each further one: a wave is a request per question, and a
request for several samples pays its prompt once."""


def waves(num_samples: int) -> tuple[int, ...]:
    """Samples per question after each wave.

    Args:
        num_samples: K.

    Returns:
        Rising numbers; the last is K.
    """
    first, step = max(2, round(_FIRST * num_samples)), max(1, round(_STEP * num_samples))
    return (*range(first, num_samples, step), num_samples)


def chance_of_change(first: int, second: int, num_left: int) -> float:
    """Chance that the leading answer no longer leads when all samples are drawn.

    Every sample that is left goes to the leader with probability p and to the second answer else,
    with p ~ Beta(first + 1, second + 1). So all rivals count as one, which makes the chance an
    upper bound of that of a change to any one of them. A tie counts as a change.

    Args:
        first: Votes of the leading answer.
        second: Votes of the next one; 0 if there is none.
        num_left: Samples that are left.

    Returns:
        A probability.
    """
    total = 0.0
    for number in range(num_left + 1):
        if first + number <= second + num_left - number:
            ways = math.log(math.comb(num_left, number))
            after = _log_beta(first + 1 + number, second + 1 + num_left - number)
            total += math.exp(ways + after - _log_beta(first + 1, second + 1))
    return total


def num_needed(rows: pl.DataFrame, *, num_samples: int, bound: float) -> pl.DataFrame:
    """Count how many samples each question needs.

    Args:
        rows: question_id, sample_idx and answer of the stored samples; a null answer votes for
            nothing. Samples beyond the needed ones are not looked at.
        num_samples: K.
        bound: Chance of a change below which a question is settled.

    Returns:
        question_id, num_needed: the first wave after which the question is settled, or that is not
        complete yet; K if there is none. Questions without rows are left out.
    """
    steps = waves(num_samples)
    state = rows.select("question_id").unique().with_columns(num_needed=pl.lit(None, pl.Int32))
    for end in steps:
        drawn = rows.filter(pl.col("sample_idx") < end)
        counts = drawn.group_by("question_id").agg(num_drawn=pl.len())
        found = state.join(counts, on="question_id", how="left")
        found = found.join(_settled(drawn, num_samples - end, bound), on="question_id", how="left")
        ends = (
            (pl.col("num_drawn").fill_null(0) < end)
            | pl.col("is_settled").fill_null(value=False)
            | pl.lit(end == num_samples)
        )
        here = pl.when(pl.col("num_needed").is_null() & ends).then(pl.lit(end, pl.Int32))
        state = found.select("question_id", num_needed=pl.coalesce("num_needed", here))
    return state.sort("question_id")


def _settled(drawn: pl.DataFrame, num_left: int, bound: float) -> pl.DataFrame:
    """question_id and is_settled of the questions with an answer."""
    votes = drawn.drop_nulls("answer").group_by("question_id", "answer").agg(count=pl.len())
    ordered = votes.sort("count", descending=True).group_by("question_id").agg("count")
    leading = ordered.select(
        "question_id",
        first=pl.col("count").list.get(0),
        second=pl.col("count").list.get(1, null_on_oob=True).fill_null(0),
    )
    pairs = leading.select("first", "second").unique()
    chances = [chance_of_change(first, second, num_left) for first, second in pairs.rows()]
    known = pairs.with_columns(is_settled=pl.Series(chances, dtype=pl.Float64) < bound)
    return leading.join(known, on=["first", "second"]).select("question_id", "is_settled")


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
