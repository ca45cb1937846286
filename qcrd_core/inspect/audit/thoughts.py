"""Finds rationales that a teacher's thought has damaged, and counts thoughts without an answer.

Before version 2 of table `rationales`, qcrd did not know thoughts. If the server left them in the
text, the rationale begins with a tag and the answer may be one that the teacher discarded. If the
server returned them apart, they were lost, and the answer has no rationale.
"""

from dataclasses import dataclass

import polars as pl

_TAG = "</?think>"


@dataclass(frozen=True)
class Thoughts:
    """Counts of rationales."""

    num_rationales: int
    num_with_tags: int
    """Rationales that contain a think tag."""
    num_bare: int
    """Answers without a rationale."""
    num_thought_only: int
    """Samples with nothing behind their thought."""

    @property
    def summary(self) -> str:
        """The counts in one line."""
        return (
            f"{self.num_with_tags:,} rationales with think tags, {self.num_bare:,} answers without "
            f"a rationale and {self.num_thought_only:,} thoughts without an answer, among "
            f"{self.num_rationales:,} samples"
        )

    @property
    def problems(self) -> list[str]:
        """One sentence or two per count that is not 0: what it means and what to do."""
        problems = []
        if self.num_with_tags:
            problems.append(
                "Think tags in a rationale: the thought was read as the explanation, and its "
                "answer may be one that the teacher discarded. Sample again with another "
                "teacher.seed."
            )
        if self.num_bare:
            problems.append(
                "No rationale beside an answer: the teacher explained nothing, or it thinks and "
                "an older qcrd lost the thought. In that case sample again with another "
                "teacher.seed."
            )
        if self.num_thought_only:
            problems.append(
                "A thought without an answer: most were cut at teacher.max_new_tokens. Raise it, "
                "or let the teacher think less with teacher.extra_body."
            )
        return problems


def find_thoughts(rationales: pl.DataFrame) -> Thoughts:
    """Count damaged rationales and thoughts without an answer.

    Args:
        rationales: rationale and status of table `rationales`.

    Returns:
        Counts.
    """
    counts = rationales.select(
        num_with_tags=pl.col("rationale").str.contains(_TAG).sum(),
        num_bare=((pl.col("status") == "ok") & pl.col("rationale").is_null()).sum(),
        num_thought_only=(pl.col("status") == "thought_only").sum(),
    )
    return Thoughts(rationales.height, *(int(count) for count in counts.row(0)))
