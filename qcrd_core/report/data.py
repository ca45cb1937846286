"""Read one run from the store.

The report shows `first_prompt` of `environment.json` (the teacher's first prompt as rendered) by
itself, and everything else in that file as the table of the environment.
"""

from dataclasses import dataclass
from typing import Any

import polars as pl

from data_schemas import Condensed, Metrics, Predictions, Questions, Scores, Table, Votes
from qcrd_core.config.run import RunConfig
from qcrd_core.errors import StoreError
from qcrd_core.run.paths import RunPaths
from qcrd_core.run.records import check_records, read_environment, read_run_config
from qcrd_core.store.store import Store


@dataclass(frozen=True)
class RunData:
    """All data of a report. Tables that the run did not write are empty."""

    run_id: str
    student: str
    """Folder or URL of the student, as commands take it. It may not exist yet."""
    config: RunConfig
    config_text: str
    environment: dict[str, Any]
    questions: pl.DataFrame
    votes: pl.DataFrame
    condensed: pl.DataFrame
    metrics: pl.DataFrame
    first_scores: pl.DataFrame
    """Table `scores` of the first round that has one."""
    last_scores: pl.DataFrame
    """Table `scores` of the last round; empty if only one round has scores."""
    test: pl.DataFrame
    """Table `predictions` of the test split, from the newest round that has one."""
    validation: pl.DataFrame
    """Table `predictions` of the validation split, from the same round."""


def collect_run(store: Store, run_id: str) -> RunData:
    """Read a run's tables.

    Args:
        store: The store that holds the run.
        run_id: The run's id.

    Returns:
        The run's data. Only its configuration must exist.

    Raises:
        StoreError: If there is no such run, or it lacks what a complete run has.
        DataError: If a table of the run is damaged.
    """
    paths = RunPaths(run_id)
    if not store.exists(paths.config):
        known = ", ".join(store.list("runs")) or "none"
        msg = f"{store} has no run {run_id!r}. Its runs: {known}."
        raise StoreError(msg)
    config = read_run_config(store, run_id)
    check_records(store, run_id)
    environment = read_environment(store, run_id)
    scores = store.list(f"{paths.root}/scores", ".parquet")
    tests = store.list(f"{paths.root}/predictions/test", ".parquet")
    # Parts are named after their round.
    validations = [
        name
        for name in store.list(f"{paths.root}/predictions/validation", ".parquet")
        if name in tests[-1:]
    ]
    return RunData(
        run_id=run_id,
        student=store.url(paths.best_student),
        config=config,
        config_text=store.read_bytes(paths.config).decode(),
        environment={} if environment is None else environment.model_dump(exclude_unset=True),
        questions=_read(store, paths.questions, Questions),
        votes=_read(store, paths.votes, Votes),
        condensed=_read(store, paths.condensed, Condensed),
        metrics=store.read_table(paths.metrics, Metrics),
        first_scores=_read_part(store, f"{paths.root}/scores", scores[:1], Scores),
        last_scores=_read_part(store, f"{paths.root}/scores", scores[1:][-1:], Scores),
        test=_read_part(store, f"{paths.root}/predictions/test", tests[-1:], Predictions),
        validation=_read_part(
            store, f"{paths.root}/predictions/validation", validations, Predictions
        ),
    )


def _read(store: Store, rel: str, table: type[Table]) -> pl.DataFrame:
    return store.read_table(rel, table) if store.exists(rel) else table.create_empty()


def _read_part(store: Store, folder: str, names: list[str], table: type[Table]) -> pl.DataFrame:
    return store.read_table(f"{folder}/{names[0]}", table) if names else table.create_empty()
