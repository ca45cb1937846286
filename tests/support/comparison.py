"""Whether two runs came to the same tables, text by text."""

import polars as pl
from polars.testing import assert_frame_equal

from data_schemas import Metrics, Polarity, Predictions, Questions, Rationales, Scores, Votes
from data_schemas.table import Table
from qcrd_core.run.context import RunContext
from qcrd_core.store.store import Store
from tests.support.distillation import rationales


def assert_same_tables(found: RunContext, expected: RunContext) -> dict[str, int]:
    """Compare all tables of two runs, but for when a row was made and how long something took.

    Returns:
        Rows of each table.
    """
    assert found.paths == expected.paths
    tables = {"rationales": (rationales(found), rationales(expected))}
    paths = found.paths
    for place, table in (
        (paths.questions, Questions),
        (paths.votes, Votes),
        (paths.polarity, Polarity),
        (f"{paths.root}/negatives", Rationales),
        (f"{paths.root}/scores", Scores),
        (f"{paths.root}/predictions", Predictions),
    ):
        one, other = (_rows(each.store, place, table) for each in (found, expected))
        tables[place.removeprefix(f"{paths.root}/")] = (one, other)
    for one, other in tables.values():
        assert_frame_equal(one, other)
    losses = [
        each.store.read_table(paths.metrics, Metrics).filter(stage="train", name="loss")
        for each in (found, expected)
    ]
    assert_frame_equal(*losses)
    return {name: one.height for name, (one, _) in tables.items()} | {"losses": losses[0].height}


def _rows(store: Store, place: str, table: type[Table]) -> pl.DataFrame:
    """Rows of all parts below a place, one part after the other: rounds have equal keys."""
    parts = [store.read_table(file.path, table) for file in store.part_files(place)]
    return pl.concat([table.create_empty(), *parts]).drop("created_at", strict=False)
