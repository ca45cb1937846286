"""Asks for failed samples of a run again, before the run is started."""

import polars as pl

from qcrd_core.errors import ConfigError
from qcrd_core.stages.plan import RunPlan
from qcrd_core.teacher.plan import SamplingPlan
from qcrd_core.teacher.retry import failed_reasons, forget_failed

_MOST_SHOWN = 10
_Asked = tuple[SamplingPlan, pl.DataFrame, int]


def describe_failed(plan: RunPlan) -> str:
    """Say how many stored samples of a run failed, and why.

    Args:
        plan: The run.

    Returns:
        One line with the number, and one per reason.

    Raises:
        ConfigError: If the run's failed samples cannot be asked again: its rationales are imported,
            or its vote has been taken.
    """
    reasons = _reasons(plan, _checked(plan))
    lines = [f"{reasons['num_rows'].sum():,} stored samples failed"]
    lines += [f"{count:>8,} x {error}" for error, count in reasons.head(_MOST_SHOWN).rows()]
    if reasons.height > _MOST_SHOWN:
        lines.append(f"         and {reasons.height - _MOST_SHOWN} other reasons")
    return "\n".join(lines)


def forget(plan: RunPlan) -> int:
    """Take the failed samples of a run out of its generation; the run then asks for them again.

    Args:
        plan: The run.

    Returns:
        Their number.

    Raises:
        ConfigError: As `describe_failed`.
        StoreError: If the store cannot be written.
    """
    return sum(
        forget_failed(plan.context.store, sampling.folder, questions=questions, num_samples=count)
        for sampling, questions, count in _checked(plan)
    )


def _reasons(plan: RunPlan, asked: list[_Asked]) -> pl.DataFrame:
    found = [
        failed_reasons(plan.context.store, sampling.folder, questions=questions, num_samples=count)
        for sampling, questions, count in asked
    ]
    counts = pl.concat(found).group_by("error").agg(pl.col("num_rows").sum())
    return counts.sort("num_rows", "error", descending=[True, False])


def _checked(plan: RunPlan) -> list[_Asked]:
    """The plan, questions and K of each teacher that is asked."""
    asked = [
        (each.sampling, plan.split("train"), each.config.teacher.num_samples)
        for each in plan.teachers
        if each.sampling is not None
    ]
    if not asked:
        msg = "--retry-failed needs a teacher that is asked; this run's rationales are imported."
        raise ConfigError(msg)
    if plan.context.store.exists(plan.context.paths.votes):
        msg = (
            f"Run {plan.run_id} has already voted without its failed samples, and its students "
            "learn from that vote. Give run.name another value: the new run shares all samples and "
            "asks only for the failed ones."
        )
        raise ConfigError(msg)
    return asked
