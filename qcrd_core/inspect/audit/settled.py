"""What `teacher.stop_when_settled` would have saved, replayed on samples that are all there."""

import polars as pl

from qcrd_core.inspect.audit.votes import DRAWS, in_drawn_order
from qcrd_core.vote.majority import vote
from qcrd_core.vote.settled import num_needed

BOUNDS = (0.05, 0.1, 0.2)

_LEAST_SAMPLES = 3
"""With fewer there is only one wave."""
_SCHEMA = {
    "bound": pl.Float64,
    "cost": pl.Float64,
    "changed": pl.Float64,
    "accuracy": pl.Float64,
    "accuracy_of_all": pl.Float64,
}


def replay_settled(rationales: pl.DataFrame, questions: pl.DataFrame) -> pl.DataFrame:
    """Vote over the samples that each bound would have asked for, and over all.

    The samples are drawn at random five times and results are averaged, because a published
    collection may list its right samples first.

    Args:
        rationales: question_id, sample_idx, source, answer, cumulative_logprob, num_tokens,
            rationale. Questions with fewer samples than the others are left out.
        questions: Table `questions`.

    Returns:
        Per bound of `BOUNDS`, as shares: bound; cost (tokens, or characters if no engine counted
        them, of those of all samples); changed (questions whose majority differs; a tie is no
        majority); accuracy and accuracy_of_all (of questions with gold, null without any).
        Empty with fewer than three samples per question.
    """
    counts = rationales.group_by("question_id").agg(num=pl.len())
    most = int(counts["num"].max() or 0)  # type: ignore[arg-type]
    whole = rationales.join(counts.filter(num=most), on="question_id", how="semi")
    if most < _LEAST_SAMPLES or whole.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    length = pl.col("rationale").str.len_chars().cast(pl.Int32)
    whole = whole.with_columns(cost=pl.coalesce("num_tokens", length).fill_null(0).cast(pl.Int64))
    found = [
        _replay(in_drawn_order(whole, draw), questions, most, bound)
        for bound in BOUNDS
        for draw in range(DRAWS)
    ]
    frame = pl.DataFrame(found, schema=_SCHEMA, orient="row")
    return frame.group_by("bound", maintain_order=True).mean()


def _replay(
    rows: pl.DataFrame, questions: pl.DataFrame, num_samples: int, bound: float
) -> tuple[float, ...]:
    needed = num_needed(rows, num_samples=num_samples, bound=bound)
    ends = rows.join(needed, on="question_id", maintain_order="left")
    asked = ends.filter(pl.col("sample_idx") < pl.col("num_needed")).drop("num_needed")
    few, full = (vote(each, questions, "abstain") for each in (asked, rows))
    both = few.join(full, on="question_id", suffix="_of_all")
    changed = both["majority_answer"].ne_missing(both["majority_answer_of_all"]).mean()
    gold = both.drop_nulls("gold_answer").with_columns(
        pl.col("is_majority_correct", "is_majority_correct_of_all").fill_null(value=False)
    )
    cost = int(asked["cost"].sum()) / max(int(rows["cost"].sum()), 1)
    accuracies = (gold["is_majority_correct"].mean(), gold["is_majority_correct_of_all"].mean())
    return (bound, cost, changed, *accuracies)  # type: ignore[return-value]
