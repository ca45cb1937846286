"""Reads the rationales of a run's teachers, sampled or imported, with the run's numbers."""

from collections.abc import Sequence
from typing import Literal

import polars as pl

from qcrd_core.data.imported import read_imported
from qcrd_core.run.context import RunContext, RunTeacher
from qcrd_core.teacher.generation import rationales_folder
from qcrd_core.teacher.plan import read_samples
from qcrd_core.vote.settled import num_needed

Taught = Literal["answer", "reasoning", "both"]

_KEYS = ("question_id", "sample_idx")


def taught(what: Taught) -> pl.Expr:
    """What a student learns of each row of table `rationales`, by `teacher.rationale`.

    Column `rationale` is the explanation in the answer, or the thought if the answer explains
    nothing.

    Args:
        what: The setting.

    Returns:
        An expression over `rationale` and `reasoning`, named `rationale`.
    """
    explained, thought = pl.col("rationale"), pl.col("reasoning")
    if what == "answer":
        return explained
    if what == "reasoning":
        return pl.coalesce(thought, explained).alias("rationale")
    both = pl.concat_str(thought, pl.lit("\n\n"), explained)  # null without one of them
    has_two = thought.is_not_null() & (thought != explained)
    return pl.when(has_two).then(both).otherwise(explained).alias("rationale")


def read_rationales(context: RunContext, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Table `rationales` of the run's training questions, without rejected rationales.

    With `teacher.stop_when_settled`, samples beyond those that the bound asks for are left out.
    Column `rationale` is what each teacher's setting `rationale` says is taught.

    Args:
        context: The run.
        columns: Columns to read, because ten million texts are several gigabytes. None reads all.

    Returns:
        Rows sorted by question_id and sample_idx, with the run's numbers; at most the K of each
        teacher per question.

    Raises:
        DataError: If a part is damaged, or there is no such imported generation.
    """
    questions = context.read_questions("train")
    rows = _joined([_taught_rows(context, t, questions, columns) for t in context.teachers])
    rejected = context.read_marks("reject")
    if not rejected.is_empty():
        rows = rows.join(rejected, on=_KEYS, how="anti", maintain_order="left")
    return rows if columns is None else rows.select(columns)


def read_all_rationales(context: RunContext, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """As `read_rationales`, including rejected rationales: they were paid for too."""
    questions = context.read_questions("train")
    rows = _joined([_stored_rows(context, t, questions, columns) for t in context.teachers])
    return rows if columns is None else rows.select(columns)


def _joined(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """The rows of all teachers in the order of their keys, in which each frame already is."""
    return frames[0] if len(frames) == 1 else pl.concat(frames).sort(_KEYS)


def _taught_rows(
    context: RunContext,
    teacher: RunTeacher,
    questions: pl.DataFrame,
    columns: Sequence[str] | None,
) -> pl.DataFrame:
    """Keys and columns of the samples of a teacher that the run counts."""
    what, bound = teacher.settings.rationale, context.config.teacher.stop_when_settled
    wanted = needed = None if columns is None else [*dict.fromkeys([*_KEYS, *columns])]
    if needed is not None and "rationale" in needed and what != "answer":
        needed = [*dict.fromkeys([*needed, "reasoning"])]
    if needed is not None and bound is not None:
        needed = [*dict.fromkeys([*needed, "answer"])]
    rows = _stored_rows(context, teacher, questions, needed)
    if bound is not None:
        # A run without the bound may have stored more; they must not change this run's vote.
        ends = num_needed(rows, num_samples=teacher.settings.num_samples, bound=bound)
        rows = rows.join(ends, on="question_id", how="left", maintain_order="left")
        rows = rows.filter(pl.col("sample_idx") < pl.col("num_needed")).drop("num_needed")
    if "rationale" in rows.columns:
        rows = rows.with_columns(taught(what))
    return rows if wanted is None else rows.select(wanted)


def _stored_rows(
    context: RunContext,
    teacher: RunTeacher,
    questions: pl.DataFrame,
    columns: Sequence[str] | None,
) -> pl.DataFrame:
    """Keys and columns of all samples of a teacher, with the run's numbers."""
    dataset, num_samples = context.environment.dataset, teacher.settings.num_samples
    wanted = None if columns is None else [*dict.fromkeys([*_KEYS, *columns])]
    if teacher.settings.is_imported:
        rows = read_imported(
            context.store, dataset, teacher.generation, questions=questions, num_samples=num_samples
        )
        rows = rows if wanted is None else rows.select(wanted)
    else:
        rows = read_samples(
            context.store,
            f"{rationales_folder(dataset)}/generation={teacher.generation}",
            questions=questions,
            num_samples=num_samples,
            columns=wanted,
        )
    if teacher.first_number:
        rows = rows.with_columns(pl.col("sample_idx") + teacher.first_number)
    return rows
