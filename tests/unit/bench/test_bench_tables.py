"""Tables of a bench: whole rows pass, contradictory ones do not."""

import polars as pl
import pytest

from data_schemas import BenchAnswers, BenchCells
from qcrd_core.errors import DataError
from qcrd_core.store.store import Store
from tests.support.tables import make_answers, make_cells


def test_bench_tables_through_a_store_keep_every_row(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    cells = make_cells(
        [
            {"method": "dss", "share": 0.25, "seed": 1, "validation_accuracy": [0.1, 0.3]},
            {"method": "qcrd", "seed": 0, "error": "TrainingError: the loss is NaN."},
        ]
    )
    answers = make_answers({("dss", 0.25, 1): "0110"})
    store.write_table("cells.parquet", cells, BenchCells)
    store.write_table("answers.parquet", answers, BenchAnswers)
    assert store.read_table("cells.parquet", BenchCells).equals(cells)
    assert store.read_table("answers.parquet", BenchAnswers).equals(answers)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"error": "lost"}, "status_agrees_with_columns"),
        ({"num_correct": None}, "status_agrees_with_columns"),
        ({"validation_accuracy": None}, "status_agrees_with_columns"),
        ({"status": "failed"}, "status_agrees_with_columns"),
        ({"num_correct": 11}, "correct_at_most_all"),
        ({"validation_accuracy": [1.5]}, "validation_accuracy"),
        ({"share": 0.0}, "share"),
    ],
    ids=["ok-error", "ok-no-count", "ok-no-curve", "failed-no-error", "too-many", "curve", "share"],
)
def test_bench_cell_that_contradicts_itself_is_refused(tmp_path, change, rule):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    row = make_cells([{"method": "dss", "seed": 0}]).row(0, named=True)
    frame = pl.DataFrame([{**row, **change}], schema=BenchCells.create_empty().schema)
    with pytest.raises(DataError, match=rule):
        store.write_table("cells.parquet", frame, BenchCells)
