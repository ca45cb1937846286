"""Counts rationales that write a false equation, also those whose answer is right all the same."""

from dataclasses import dataclass

import polars as pl

from qcrd_core.data.equations import false_step

_MOST_CHECKED = 20_000


@dataclass(frozen=True)
class Steps:
    """Counts of rationales with an answer, of questions with a gold answer."""

    num_rationales: int
    num_checked: int
    """At most 20,000, spread evenly over all."""
    num_right: int
    """Of the checked ones: those with the right answer."""
    num_right_false: int
    """Of these: those with a false equation."""
    num_wrong_false: int
    """Those with a wrong answer and a false equation."""

    @property
    def summary(self) -> str:
        """The counts in one line."""
        wrong = self.num_checked - self.num_right
        return (
            f"{self.num_right_false:,} of {self.num_right:,} rationales with the right answer and "
            f"{self.num_wrong_false:,} of {wrong:,} with a wrong one write a false equation"
            + ("" if self.num_checked == self.num_rationales else ", of a sample of all")
        )


def find_steps(rationales: pl.DataFrame, questions: pl.DataFrame) -> Steps:
    """Check the equations of rationales.

    Args:
        rationales: question_id, answer and rationale of table `rationales`.
        questions: question_id and gold_answer of table `questions`.

    Returns:
        Counts.
    """
    gold = questions.select("question_id", "gold_answer").drop_nulls()
    rows = rationales.drop_nulls(["rationale", "answer"]).join(gold, on="question_id")
    checked = rows.gather_every(-(-rows.height // _MOST_CHECKED) or 1)
    texts = checked["rationale"].unique()
    is_false = {text: false_step(text) is not None for text in texts}
    found = checked.select(
        right=pl.col("answer") == pl.col("gold_answer"),
        false=pl.col("rationale").replace_strict(is_false, return_dtype=pl.Boolean),
    )
    return Steps(
        num_rationales=rows.height,
        num_checked=checked.height,
        num_right=int(found["right"].sum()),
        num_right_false=found.filter("right", "false").height,
        num_wrong_false=found.filter(~pl.col("right"), pl.col("false")).height,
    )
