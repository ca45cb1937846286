"""A store or a run in numbers."""

from dataclasses import dataclass

import polars as pl

from qcrd_core.inspect.view import View
from qcrd_core.parts import collect
from qcrd_core.vote import summarize_votes

_BINS = 10
_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, eq=False)
class Summary:
    """What a view holds. Tables of the vote are empty where there is none."""

    name: str
    num_questions: dict[str, int]
    """By split."""
    counts: pl.DataFrame
    """dataset, source, generation, round, status, num_rows, num_tokens, num_prompt_tokens."""
    lengths: pl.DataFrame
    """source, and quantiles 5%, 50%, 95% and maximum: of sampled tokens, or where no engine counted
    them, of characters (column unit)."""
    failures: pl.DataFrame
    """error, num_rows: reasons of failed rows, most frequent first."""
    vote: dict[str, float | None]
    """What `summarize_votes` says; empty without votes."""
    agreement: pl.DataFrame
    """Bins of agreement: low, high, num_questions, num_with_gold, num_correct."""
    margin: pl.DataFrame
    """The same bins of the margin."""
    num_other_text: int
    """Rows that did not vote: asked with another text of their question, or stored twice."""
    curation: dict[str, int]
    """Marks of curators, by mark."""


def summarize(view: View) -> Summary:
    """Count what a store or a run holds.

    Args:
        view: The store or run.

    Returns:
        Its numbers.

    Raises:
        DataError: If a part is damaged.
    """
    names = ["source", "generation", "round", "status"]
    rows = view.rationales()
    # A sum of Int32 stays Int32, and ten million prompts exceed it.
    tokens = [pl.col(name).cast(pl.Int64).sum() for name in ("num_tokens", "num_prompt_tokens")]
    counts = collect(rows.group_by(names).agg(pl.len().alias("num_rows"), *tokens), view.name)
    datasets = {each.fingerprint: each.dataset for each in view.generations}
    named = pl.col("generation").replace_strict(datasets, default=None, return_dtype=pl.String)
    counts = counts.with_columns(named.alias("dataset"), pl.col(pl.Enum).cast(pl.String))
    votes = collect(view.votes(), view.name)
    num_voted = int(votes["num_samples"].sum())
    num_teacher = int(counts.filter(pl.col("source") != "student")["num_rows"].sum())
    splits = collect(view.questions().group_by("split").len(), view.name)
    marks = collect(view.curation().group_by("mark").len(), view.name)
    has_failures = not counts.filter(pl.col("status") == "failed").is_empty()
    return Summary(
        name=view.name,
        num_questions={str(split): count for split, count in splits.sort("split").rows()},
        counts=counts.sort(names, nulls_last=False),
        lengths=_lengths(view, rows, counts),
        failures=_failures(view, rows) if has_failures else pl.DataFrame(),
        vote={} if votes.is_empty() else summarize_votes(votes),
        agreement=bin_votes(votes, "agreement"),
        margin=bin_votes(votes, "margin"),
        num_other_text=max(0, num_teacher - num_voted) if not votes.is_empty() else 0,
        curation={str(mark): count for mark, count in marks.sort("mark").rows()},
    )


def bin_votes(votes: pl.DataFrame, column: str) -> pl.DataFrame:
    """Count votes, and how often the majority is right, by tenths of agreement or margin.

    Args:
        votes: Table `votes`.
        column: agreement or margin.

    Returns:
        low, high (1.0 has a bin of its own, low = high), num_questions, num_with_gold (decided
        votes with a gold answer) and num_correct; empty bins left out.
    """
    # Shares are fractions of small numbers: a little is added so that 0.3 is not 0.29999.
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


def _lengths(view: View, rows: pl.LazyFrame, counts: pl.DataFrame) -> pl.DataFrame:
    counted = counts.filter(pl.col("num_tokens") > 0)["source"].unique().to_list()
    source, tokens = pl.col("source").cast(pl.String), pl.col("num_tokens")
    frames = [_quantiles(rows.filter(source.is_in(counted)), tokens, "tokens")]
    if set(counts["source"]) - set(counted):
        others = rows.filter(~source.is_in(counted))
        frames.append(_quantiles(others, pl.col("text").str.len_chars(), "characters"))
    return collect(pl.concat(frames).sort("source"), view.name)


def _quantiles(rows: pl.LazyFrame, length: pl.Expr, unit: str) -> pl.LazyFrame:
    shares = {f"q{round(100 * q):02d}": length.quantile(q, "nearest") for q in _QUANTILES}
    return (
        rows.group_by(pl.col("source").cast(pl.String))
        .agg(**shares, max=length.max())
        .with_columns(pl.exclude("source").cast(pl.Int64), unit=pl.lit(unit))
    )


def _failures(view: View, rows: pl.LazyFrame) -> pl.DataFrame:
    failed = rows.filter(pl.col("status") == "failed")
    counted = failed.group_by("error").agg(num_rows=pl.len())
    return collect(counted.sort("num_rows", "error", descending=[True, False]), view.name)
