"""A table's layout is fixed for its version; every stored version still reads."""

import json
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import dataframely as dy
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_schemas import TABLES, Scores
from data_schemas.reference import (
    LayoutChangedError,
    check_layout,
    render_reference,
    store_layout,
    stored_path,
)
from data_schemas.table import (
    METADATA_KEY,
    SchemaMismatchError,
    check_rows,
    read_part,
    write_part,
)

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STORED = sorted(HERE.glob("*.v*.json"))
by_name = {table.table_name: table for table in TABLES}
each_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.table_name)


@each_table
def test_table_has_the_layout_stored_for_its_version(table):
    check_layout(table, stored_path(HERE, table, table.version))


@each_table
def test_table_describes_every_column_version_and_one_valid_row(table):
    assert all(column.description for column in table.columns().values())
    assert sorted(table.changes) == list(range(1, table.version + 1))
    assert set(table.example) == set(table.column_names())
    assert set(table.distinct) <= set(table.column_names())
    table.validate(pl.DataFrame([table.example], schema=table.create_empty().schema))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_version_is_read_as_the_present_one(path):
    stored = json.loads(path.read_text(encoding="utf-8"))
    table = by_name[stored["table"]]
    row = {
        name: datetime.fromisoformat(value) if name.endswith("_at") else value
        for name, value in stored["example"].items()
    }
    arrow = pa.Table.from_pylist([row])
    metadata = {"table": table.table_name, "version": stored["version"], "num_rows": 1}
    sink = pa.BufferOutputStream()
    pq.write_table(
        arrow.replace_schema_metadata({METADATA_KEY: json.dumps(metadata).encode()}), sink
    )

    frame = read_part(pa.BufferReader(sink.getvalue()), table, path.name)

    assert frame.height == 1


def test_every_version_of_every_table_is_stored():
    wanted = {stored_path(HERE, table, v) for table in TABLES for v in range(1, table.version + 1)}
    assert set(STORED) == wanted


def test_reference_page_is_the_one_generated():
    page = (ROOT / "docs" / "schemas.md").read_text(encoding="utf-8")
    assert page == render_reference(TABLES), "run python -m data_schemas"


def test_changed_layout_without_a_new_version_says_what_to_do():
    class Changed(Scores):
        quality_score = dy.Float64(nullable=True, description="May be absent now.")
        judge = dy.String(description="New.")

    path = stored_path(HERE, Scores, 1)
    with pytest.raises(LayoutChangedError) as error:
        check_layout(Changed, path)
    text = str(error.value)
    assert "quality_score.nullable was False, now True" in text
    assert "column judge is new" in text
    assert "Raise its version to" in text


def test_store_layout_keeps_what_is_stored_and_adds_a_new_version(tmp_path):
    class Second(Scores):
        version: ClassVar[int] = Scores.version + 1

    assert store_layout(Scores, tmp_path) is not None
    assert store_layout(Scores, tmp_path) is None
    assert store_layout(Second, tmp_path) == stored_path(tmp_path, Scores, Scores.version + 1)
    assert len(list(tmp_path.iterdir())) == 2


def test_example_row_of_every_table_can_be_written():
    for table in TABLES:
        frame = pl.DataFrame([table.example], schema=table.create_empty().schema)
        sink = pa.BufferOutputStream()
        write_part(frame, table, sink)
        assert read_part(pa.BufferReader(sink.getvalue()), table, "part").equals(frame)


@each_table
def test_check_rows_gives_and_refuses_what_validate_does(table):
    (key, *_) = table.primary_key() or table.column_names()
    good = {**table.example, key: "another"}
    tables = [[table.example], [table.example] * 2, [table.example, good]]
    tables += [[good, {**table.example, n: odd}] for n in good for odd in _odd(good[n])]
    outcomes = {True: 0, False: 0}
    for rows in tables:
        frame = pl.DataFrame(rows, strict=False, infer_schema_length=None)
        wanted, found = (_outcome(check, frame) for check in (_validate(table), _check(table)))
        outcomes[wanted is None] += 1
        assert (found is None) == (wanted is None), rows
        assert wanted is None or found.equals(wanted, null_equal=True), rows
        assert wanted is None or found.schema == wanted.schema

    assert min(outcomes.values()) > 0


def _odd(value):
    """Values that a frame can hold beside this one."""
    return (None,) if isinstance(value, list | datetime) else (None, "no category", -1)


def _validate(table):
    return lambda frame: table.validate(frame, cast=True)


def _check(table):
    return lambda frame: check_rows(frame, table, "Rows")


def _outcome(check, frame):
    """The rows as a check gives them; None if it refuses them."""
    try:
        return check(frame)
    except (SchemaMismatchError, dy.exc.ValidationError, pl.exceptions.PolarsError):
        return None
