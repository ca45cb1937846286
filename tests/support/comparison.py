"""Whether two runs came to the same tables, text by text."""

from polars.testing import assert_frame_equal

from data_schemas import Metrics, Predictions, Questions, Rationales, Scores, Votes
from qcrd_core.context import RunContext
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
        (f"{paths.root}/negatives", Rationales),
        (f"{paths.root}/scores", Scores),
        (f"{paths.root}/predictions", Predictions),
    ):
        one, other = (each.store.read_table(place, table) for each in (found, expected))
        tables[place.removeprefix(f"{paths.root}/")] = (
            one.drop("created_at", strict=False),
            other.drop("created_at", strict=False),
        )
    for one, other in tables.values():
        assert_frame_equal(one, other)
    losses = [
        each.store.read_table(paths.metrics, Metrics).filter(stage="train", name="loss")
        for each in (found, expected)
    ]
    assert_frame_equal(*losses)
    return {name: one.height for name, (one, _) in tables.items()} | {"losses": losses[0].height}
