"""What changed between two runs, question by question."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from qcrd_core.config.reference import as_yaml
from qcrd_core.inspect.view import View
from qcrd_core.store.parts import collect
from qcrd_core.teacher.generation import differences, flatten


@dataclass(frozen=True, eq=False)
class RunDifference:
    """Run b compared with run a."""

    settings: list[str]
    """Settings that differ, `name old -> new`."""
    questions: pl.DataFrame
    """Questions voted on in either run: question_id, change (new, gone, flipped, same), majority_a,
    majority_b, agreement_a, agreement_b, correct_a, correct_b, and correctness (fixed, broken or
    null)."""
    predictions: pl.DataFrame
    """Test questions that both students answered: question_id, answer_a, answer_b, correct_a,
    correct_b, correctness."""


def differing_settings(views: Sequence[View]) -> list[tuple[str, list[str]]]:
    """Find the settings that are not the same in all runs.

    Args:
        views: The runs.

    Returns:
        Name and one value per run; an empty text where a run has no such setting.
    """
    runs = [flatten(view.settings) for view in views]
    found = []
    for name in sorted(set().union(*runs)):
        values = [as_yaml(run[name]) if name in run else "" for run in runs]
        if len(set(values)) > 1:
            found.append((name, values))
    return found


def compare_runs(a: View, b: View) -> RunDifference:
    """Compare two runs of the same store or of different stores.

    Args:
        a: The earlier run.
        b: The later run.

    Returns:
        The differences.

    Raises:
        DataError: If a part is damaged.
    """
    settings = differences(a.settings, b.settings)
    votes = [
        collect(view.votes(), view.name).select(
            "question_id",
            pl.col("majority_answer").alias(f"majority_{name}"),
            pl.col("agreement").alias(f"agreement_{name}"),
            pl.col("is_majority_correct").alias(f"correct_{name}"),
            pl.lit(value=True).alias(f"has_{name}"),
        )
        for name, view in (("a", a), ("b", b))
    ]
    joined = votes[0].join(votes[1], on="question_id", how="full", coalesce=True)
    change = (
        pl.when(pl.col("has_a").is_null())
        .then(pl.lit("new"))
        .when(pl.col("has_b").is_null())
        .then(pl.lit("gone"))
        .when(pl.col("majority_a").ne_missing(pl.col("majority_b")))
        .then(pl.lit("flipped"))
        .otherwise(pl.lit("same"))
    )
    questions = joined.with_columns(change=change, correctness=_correctness())
    return RunDifference(
        settings=settings,
        questions=questions.drop("has_a", "has_b").sort("question_id"),
        predictions=_predictions(a, b),
    )


def _predictions(a: View, b: View) -> pl.DataFrame:
    frames = []
    for name, view in (("a", a), ("b", b)):
        test = collect(view.predictions().filter(pl.col("split") == "test"), view.name)
        newest = test.filter(pl.col("round") == pl.col("round").max())
        frames.append(
            newest.select(
                "question_id",
                pl.col("answer").alias(f"answer_{name}"),
                pl.col("is_correct").alias(f"correct_{name}"),
            )
        )
    joined = frames[0].join(frames[1], on="question_id", how="inner")
    return joined.with_columns(correctness=_correctness()).sort("question_id")


def _correctness() -> pl.Expr:
    before, after = (pl.col(f"correct_{n}").fill_null(value=False) for n in ("a", "b"))
    return (
        pl.when(~before & after).then(pl.lit("fixed")).when(before & ~after).then(pl.lit("broken"))
    )
