"""How right each of several teachers is, as the vote stored it."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from qcrd_core.config.teacher import OneTeacher
from qcrd_core.report.summary import last_values
from qcrd_core.report.text import number, percent, teacher_names

HEADINGS = (
    "teacher", "samples", "answered", "right, of known", "majority right", "agree", "tokens",
    "weight",
)  # fmt: skip
"""Columns of `TeacherRow.cells`."""
NOTE = (
    "Right: answers to questions with a gold answer. Majority: of this teacher's samples alone. "
    "Agree: answers equal to the unweighted majority of all. Weight: what a vote counts."
)


@dataclass(frozen=True)
class TeacherRow:
    """One teacher; shares are None if there is nothing to count."""

    name: str
    num_samples: float
    num_answered: float
    precision: float | None
    """Share of right answers, of those to questions with a gold answer."""
    majority_accuracy: float | None
    """Of the teacher's samples alone."""
    agreement: float | None
    """Share of its answers that equal the unweighted majority."""
    num_tokens: float | None
    """Sampled tokens; None if no engine counted them."""
    weight: float
    """What a vote counts."""

    @property
    def cells(self) -> list[str]:
        """Texts of `HEADINGS`."""
        return [
            self.name,
            number(self.num_samples),
            number(self.num_answered),
            percent(self.precision),
            percent(self.majority_accuracy),
            percent(self.agreement),
            number(self.num_tokens),
            f"{self.weight:.2f}",
        ]


@dataclass(frozen=True)
class TeacherReport:
    """The teachers of a run, and their vote with and without weights."""

    rows: list[TeacherRow]
    weights: str
    """Setting `voting.weights`."""
    accuracy: float | None
    """Of the majority, as the run voted; an abstention is wrong."""
    unweighted_accuracy: float | None

    @property
    def summary(self) -> str:
        """Both votes in one line."""
        if self.weights == "equal":
            return f"majority of all, votes count the same: {percent(self.accuracy)} right"
        return (
            f"majority of all, weighted by {self.weights}: {percent(self.accuracy)} right; "
            f"unweighted: {percent(self.unweighted_accuracy)}"
        )


def teacher_report(
    metrics: pl.DataFrame, teachers: Sequence[OneTeacher], weights: str
) -> TeacherReport | None:
    """Read how right each teacher is.

    Args:
        metrics: Table `metrics` of the run.
        teachers: All teachers of the run.
        weights: Setting `voting.weights`.

    Returns:
        Their numbers; None for one teacher, and before the vote.
    """
    found = last_values(metrics, "teachers")
    if not found:
        return None
    rows = [_row(name, place, found) for place, name in enumerate(teacher_names(teachers))]
    accuracy = last_values(metrics, "vote").get("majority_accuracy")
    return TeacherReport(rows, weights, accuracy, found.get("unweighted_majority_accuracy"))


def _row(name: str, place: int, found: dict[str, float]) -> TeacherRow:
    def share(part: str, whole: str) -> float | None:
        total = found[f"{place} {whole}"]
        return found[f"{place} {part}"] / total if total else None

    return TeacherRow(
        name=name,
        num_samples=found[f"{place} num_samples"],
        num_answered=found[f"{place} num_answered"],
        precision=share("num_right", "num_known"),
        majority_accuracy=found.get(f"{place} majority_accuracy"),
        agreement=share("num_agreeing", "num_decided"),
        num_tokens=found.get(f"{place} num_tokens"),
        weight=found[f"{place} weight"],
    )
