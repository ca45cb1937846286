"""Count what a store or a run holds."""

from dataclasses import dataclass

import polars as pl

from qcrd_core.inspect.view import View
from qcrd_core.store.parts import collect
from qcrd_core.vote.majority import summarize_votes

_NAMES = ("source", "generation", "round", "status")
_BINS = 10
_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, eq=False)
class Summary:
    """The numbers of a store or run. Without a vote, its tables are empty."""

    name: str
    num_questions: dict[str, int]
    """Number of questions by split."""
    counts: pl.DataFrame
    """dataset, source, generation, round, status, num_rows, num_tokens, num_prompt_tokens."""
    lengths: pl.DataFrame
    """source, and quantiles 5%, 50%, 95% and maximum of sampled tokens, or of characters if no
    engine counted tokens (column unit)."""
    failures: pl.DataFrame
    """error, num_rows: reasons of failed rows, most frequent first."""
    vote: dict[str, float | None]
    """Result of `summarize_votes`; empty without votes."""
    agreement: pl.DataFrame
    """Bins of agreement: low, high, num_questions, num_with_gold, num_correct."""
    margin: pl.DataFrame
    """The same bins of the margin."""
    num_other_text: int
    """Rows without a vote: another text of their question was asked, or they are duplicates."""
    curation: dict[str, int]
    """Number of curators' marks, by mark."""


def summarize(view: View) -> Summary:
    """Count what a store or a run holds.

    Args:
        view: The store or run.

    Returns:
        The numbers.

    Raises:
        DataError: If a part is damaged.
    """
    # One pass over the parts, because opening thousands of them costs more than counting.
    groups = [*_NAMES, "error", "num_tokens"]
    prompts = pl.col("num_prompt_tokens").cast(pl.Int64).sum()
    rows = view.rationales()
    counted = rows.group_by(groups).agg(pl.len().cast(pl.Int64).alias("num_rows"), prompts)
    histogram = collect(counted, view.name).with_columns(pl.col(pl.Enum).cast(pl.String))
    counts = _counts(view, histogram)
    votes = collect(view.votes(), view.name)
    num_voted = int(votes["num_samples"].sum())
    num_teacher = int(counts.filter(pl.col("source") != "student")["num_rows"].sum())
    splits = collect(view.questions().group_by("split").len(), view.name)
    marks = collect(view.curation().group_by("mark").len(), view.name)
    return Summary(
        name=view.name,
        num_questions={str(split): count for split, count in splits.sort("split").rows()},
        counts=counts,
        lengths=_lengths(view, rows, histogram),
        failures=_failures(histogram),
        vote={} if votes.is_empty() else summarize_votes(votes),
        agreement=bin_votes(votes, "agreement"),
        margin=bin_votes(votes, "margin"),
        num_other_text=max(0, num_teacher - num_voted) if not votes.is_empty() else 0,
        curation={str(mark): count for mark, count in marks.sort("mark").rows()},
    )


def bin_votes(votes: pl.DataFrame, column: str) -> pl.DataFrame:
    """Count votes and right majorities by tenths of agreement or margin.

    Args:
        votes: Table `votes`.
        column: agreement or margin.

    Returns:
        low, high (1.0 has its own bin, low = high), num_questions, num_with_gold (decided votes
        with a gold answer) and num_correct, without empty bins.
    """
    # Shares are fractions of small numbers. The small term keeps 0.3 from becoming 0.29999.
    index = (pl.col(column) * _BINS + 1e-9).floor().cast(pl.Int32).alias("bin")
    known = pl.col("is_majority_correct").is_not_null()
    return (
        votes.filter(pl.col(column).is_not_null())
        .group_by(index)
        .agg(
            num_questions=pl.len(),
            num_with_gold=known.sum(),
            num_correct=pl.col("is_majority_correct").sum(),
        )
        .sort("bin")
        .select(
            (pl.col("bin") / _BINS).alias("low"),
            ((pl.col("bin") + 1) / _BINS).clip(upper_bound=1.0).alias("high"),
            "num_questions",
            "num_with_gold",
            "num_correct",
        )
    )


def _counts(view: View, histogram: pl.DataFrame) -> pl.DataFrame:
    # A sum of Int32 stays Int32, and ten million prompts overflow it.
    tokens = (pl.col("num_tokens").cast(pl.Int64) * pl.col("num_rows")).sum()
    sums = [pl.col("num_rows").sum(), tokens.alias("num_tokens"), pl.col("num_prompt_tokens").sum()]
    counts = histogram.group_by(_NAMES).agg(*sums)
    datasets = {each.fingerprint: each.dataset for each in view.generations}
    named = pl.col("generation").replace_strict(datasets, default=None, return_dtype=pl.String)
    return counts.with_columns(named.alias("dataset")).sort(_NAMES, nulls_last=False)


def _lengths(view: View, rows: pl.LazyFrame, histogram: pl.DataFrame) -> pl.DataFrame:
    known = histogram.drop_nulls("num_tokens").filter(pl.col("num_tokens") > 0)
    counted = known["source"].unique().to_list()
    lengths = histogram.filter(pl.col("source").is_in(counted)).select(
        "source", length="num_tokens", num_rows="num_rows", unit=pl.lit("tokens")
    )
    others = sorted(set(histogram["source"]) - set(counted))
    if others:
        source = pl.col("source").cast(pl.String)
        characters = pl.col("text").str.len_chars().cast(pl.Int32)
        found = rows.filter(source.is_in(others)).group_by(source, length=characters)
        made = collect(found.agg(num_rows=pl.len().cast(pl.Int64)), view.name)
        lengths = pl.concat([lengths, made.with_columns(unit=pl.lit("characters"))])
    quantiles = {
        **{f"q{round(100 * share):02d}": _quantile(share) for share in _QUANTILES},
        "max": pl.col("length").max(),
    }
    return (
        lengths.drop_nulls("length")
        .group_by("source", "unit", "length")
        .agg(pl.col("num_rows").sum())
        .sort("source", "length")
        .group_by("source", "unit", maintain_order=True)
        .agg(**quantiles)
        .select("source", pl.col(*quantiles).cast(pl.Int64), "unit")
    )


def _quantile(share: float) -> pl.Expr:
    """The length nearest to a quantile, from sorted lengths and the number of rows of each."""
    place = ((pl.col("num_rows").sum() - 1) * share + 0.5).floor()
    return pl.col("length").filter(pl.col("num_rows").cum_sum() > place).first()


def _failures(histogram: pl.DataFrame) -> pl.DataFrame:
    failed = histogram.filter(pl.col("status") == "failed")
    counted = failed.group_by("error").agg(pl.col("num_rows").sum())
    return counted.sort("num_rows", "error", descending=[True, False])
