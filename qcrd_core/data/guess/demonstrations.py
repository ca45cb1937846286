"""Two demonstrations for the teacher's prompt, taken from a data set's training questions."""

from collections.abc import Mapping

import polars as pl

from qcrd_core.data.spec import DatasetSpec, Demonstration

_LONGEST = 1_200
_FROM = 0.25


def choose_demonstrations(
    questions: pl.DataFrame, reasoning: Mapping[str, str], spec: DatasetSpec
) -> tuple[Demonstration, ...]:
    """Choose two training questions with different answers: short ones, but not the shortest.

    Args:
        questions: Table `questions`; only its split train is shown to the teacher.
        reasoning: Worked reasoning by question id; questions that have one come first.
        spec: The data set.

    Returns:
        At most two. The rationale is a space if the data has none.
    """
    train = questions.filter(pl.col("split") == "train").drop_nulls("gold_answer")
    rows = [row for row in train.iter_rows(named=True) if _size(row, reasoning) <= _LONGEST]
    worked = [row for row in rows if reasoning.get(row["question_id"])]
    ordered = sorted(worked or rows, key=lambda row: (_size(row, reasoning), row["question_id"]))
    ordered = ordered[int(len(ordered) * _FROM) :]
    first = ordered[:1]
    second = [row for row in ordered if row["gold_answer"] != first[0]["gold_answer"]][:1]
    return tuple(
        Demonstration(
            question=row["question"],
            rationale=reasoning.get(row["question_id"]) or " ",
            answer=_answer(row, spec),
        )
        for row in (*first, *second)
    )


def _size(row: Mapping[str, str], reasoning: Mapping[str, str]) -> int:
    return len(row["question"]) + len(reasoning.get(row["question_id"], ""))


def _answer(row: Mapping[str, str], spec: DatasetSpec) -> str:
    if spec.answer.kind != "choice":
        return row["gold_target"] or row["gold_answer"]
    letter = chr(ord("a") + list(row["choices"]).index(row["gold_answer"]))
    return f"({letter}) {row['gold_answer']}"
