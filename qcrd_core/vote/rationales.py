"""Reads the teacher rationales of a run, sampled or imported."""

from collections.abc import Sequence
from typing import Literal

import polars as pl

from qcrd_core.config.models import ImportedModel
from qcrd_core.data.imported import read_imported
from qcrd_core.run.context import RunContext
from qcrd_core.run.records import Environment
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
    Column `rationale` is what `teacher.rationale` says is taught.

    Args:
        context: The run.
        columns: Columns to read, because ten million texts are several gigabytes. None reads all.

    Returns:
        Rows sorted by question_id and sample_idx; at most K per question.

    Raises:
        DataError: If a part is damaged, or there is no such imported generation.
    """
    what = context.config.teacher.rationale
    wanted = None if columns is None else [*dict.fromkeys([*_KEYS, *columns])]
    needed = wanted
    if wanted is not None and "rationale" in wanted and what != "answer":
        needed = [*dict.fromkeys([*wanted, "reasoning"])]
    bound = context.config.teacher.stop_when_settled
    if needed is not None and bound is not None:
        needed = [*dict.fromkeys([*needed, "answer"])]
    rows = read_all_rationales(context, needed)
    if bound is not None:
        # A run without the bound may have stored more; they must not change this run's vote.
        ends = num_needed(rows, num_samples=context.config.teacher.num_samples, bound=bound)
        rows = rows.join(ends, on="question_id", how="left", maintain_order="left")
        rows = rows.filter(pl.col("sample_idx") < pl.col("num_needed")).drop("num_needed")
    if "rationale" in rows.columns:
        rows = rows.with_columns(taught(what))
    rejected = context.read_marks("reject")
    if not rejected.is_empty():
        rows = rows.join(rejected, on=_KEYS, how="anti", maintain_order="left")
    return rows if columns is None else rows.select(columns)


def read_all_rationales(context: RunContext, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """As `read_rationales`, including rejected rationales: they were paid for too."""
    questions, teacher = context.read_questions("train"), context.config.teacher
    environment = context.store.read_json(context.paths.environment, Environment)
    dataset, generation = environment.dataset, environment.generation
    if isinstance(teacher.model, ImportedModel):
        rows = read_imported(
            context.store,
            dataset,
            teacher.model.generation,
            questions=questions,
            num_samples=teacher.num_samples,
        )
        return rows if columns is None else rows.select(columns)
    return read_samples(
        context.store,
        f"{rationales_folder(dataset)}/generation={generation}",
        questions=questions,
        num_samples=teacher.num_samples,
        columns=columns,
    )
