"""Accuracy of the vote for different numbers of samples."""

from dataclasses import dataclass

import polars as pl

from qcrd_core.vote.majority import vote

DRAWS = 5


@dataclass(frozen=True, eq=False)
class Sweep:
    """Accuracy and cost by the number of samples."""

    rows: pl.DataFrame
    """k, accuracy (right majorities of k samples / questions with gold; ties go to the answer drawn
    first), num_tokens (mean per question; null if no engine counted them)."""
    knee: int | None
    """The k beyond which accuracy rises more slowly than on average; None for fewer than three."""


def sweep_samples(rationales: pl.DataFrame, questions: pl.DataFrame) -> Sweep:
    """Vote over 1, 2, ... K samples of each question.

    The samples are drawn at random five times and results are averaged, because a published
    collection may list its right samples first.

    Args:
        rationales: question_id, sample_idx, source, answer, cumulative_logprob, num_tokens.
        questions: Table `questions`.

    Returns:
        Accuracy and cost by k. Questions without gold are left out.
    """
    gold = questions.filter(pl.col("gold_answer").is_not_null())
    known = rationales.join(gold.select("question_id"), on="question_id", how="semi")
    most = 0 if known.is_empty() else int(known.group_by("question_id").len()["len"].max())  # type: ignore[arg-type]
    num_questions = known["question_id"].n_unique()
    sums = dict.fromkeys(range(1, most + 1), (0.0, 0))
    for draw in range(DRAWS):
        drawn = in_drawn_order(known, draw)
        for k in sums:
            first = drawn.filter(pl.col("sample_idx") < k)
            right = vote(first, gold, "first")["is_majority_correct"].sum()
            sums[k] = (
                sums[k][0] + float(right),
                sums[k][1] + int(first["num_tokens"].cast(pl.Int64).sum()),
            )
    has_tokens = known["num_tokens"].count() > 0
    rows = [
        (k, right / num_questions / DRAWS, tokens / num_questions / DRAWS if has_tokens else None)
        for k, (right, tokens) in sums.items()
    ]
    schema = {"k": pl.Int64, "accuracy": pl.Float64, "num_tokens": pl.Float64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return Sweep(frame, _knee(frame["accuracy"].to_list()))


def in_drawn_order(rationales: pl.DataFrame, draw: int) -> pl.DataFrame:
    """The samples of each question, numbered again in a random order that `draw` decides."""
    chance = pl.struct("question_id", "sample_idx").hash(draw)
    place = (chance.rank("ordinal").over("question_id") - 1).cast(pl.Int32)
    return rationales.with_columns(sample_idx=place)


def _knee(values: list[float]) -> int | None:
    """The point farthest above the straight line from the first value to the last.

    Source: Satopaa et al., "Finding a 'Kneedle' in a Haystack", 2011, for a rising curve.
    """
    if len(values) < 3 or values[-1] <= values[0]:
        return None
    steps, rise = len(values) - 1, values[-1] - values[0]
    above = [(value - values[0]) / rise - i / steps for i, value in enumerate(values)]
    return max(range(len(values)), key=lambda i: (above[i], -i)) + 1
