"""What every table shares: its version in the file, validation at write and at read.

`write_part` and `read_part` turn a typed frame into Parquet bytes and back. Where the bytes live
(local folder, object store) is `qcrd_core.store.store`'s matter.

Version rule: a reader accepts its own version, migrates older ones with `Table.migrate`, and
refuses newer ones with a sentence.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar

import dataframely as dy
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

METADATA_KEY = b"qcrd"

# Small enough that one question is found without reading much, large enough for zstd: 8,192 rows
# made real samples 60% larger, 32,768 rows 7%, against one group.
_ROWS_PER_GROUP = 32_768
_LIMITS = ("min", "max", "min_exclusive", "max_exclusive", "min_length", "max_length", "regex")


class SchemaMismatchError(ValueError):
    """A Parquet file is not the table it should be."""


class Table(dy.Schema):
    """Base of all tables. Subclasses set what is below and declare columns.

    A column's unit is in its `metadata`. A new version needs an entry in `changes`, a branch in
    `migrate`, and `python -m data_schemas`, which stores its layout and writes docs/schemas.md.
    """

    table_name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    changes: ClassVar[Mapping[int, str]] = {1: "First version."}
    """What each version changed, from 1 to `version`."""
    example: ClassVar[Mapping[str, Any]] = {}
    """One valid row."""
    distinct: ClassVar[frozenset[str]] = frozenset()
    """Columns whose values hardly ever repeat: a dictionary of them would only cost."""

    @classmethod
    def migrate(cls, frame: pl.DataFrame, version: int) -> pl.DataFrame:
        """Bring a frame of an older `version` to the current one.

        Args:
            frame: Rows as they stand in the file.
            version: The version in the file's metadata, lower than `cls.version`.

        Returns:
            The frame in the current version's columns.

        Raises:
            SchemaMismatchError: If no migration from `version` exists.
        """
        del frame
        msg = f"No migration leads from {cls.table_name} version {version} to {cls.version}."
        raise SchemaMismatchError(msg)


def layout(table: type[Table]) -> dict[str, Any]:
    """Describe a table's columns: whatever changes here makes a new version.

    Returns:
        JSON-able: table, version, columns (name, type, nullable, primary_key, unit, limits) and
        the names of its row rules.
    """
    return {
        "table": table.table_name,
        "version": table.version,
        "columns": [_describe(name, column) for name, column in table.columns().items()],
        "row_rules": sorted(table._schema_validation_rules()),
    }


def layout_fingerprint(table: type[Table]) -> str:
    """Hash a table's layout; it stands in every file's metadata."""
    text = json.dumps(layout(table), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def stored_metadata(schema: pa.Schema, where: str) -> dict[str, Any]:
    """Read what qcrd wrote about a file: table, version, num_rows, fingerprint.

    Args:
        schema: The file's Arrow schema.
        where: How to name the file in an error.

    Returns:
        The metadata; the fingerprint is None in files of qcrd 0.1.

    Raises:
        SchemaMismatchError: If there is none, or it is damaged.
    """
    raw = (schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        msg = (
            f"{where} must be written by qcrd; it has no qcrd metadata. Bring foreign files in "
            "with `qcrd import`."
        )
        raise SchemaMismatchError(msg)
    try:
        stored = json.loads(raw)
        return {
            "table": str(stored["table"]),
            "version": int(stored["version"]),
            "num_rows": int(stored["num_rows"]),
            "fingerprint": stored.get("fingerprint"),
        }
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{where} must have whole qcrd metadata; got {raw!r}. Delete the file and run again."
        raise SchemaMismatchError(msg) from error


def write_part(frame: pl.DataFrame, table: type[Table], sink: pa.NativeFile) -> None:
    """Validate `frame` as `table` and write it as zstd Parquet with the table's name and version.

    Args:
        frame: Rows with exactly the table's columns; column order does not matter.
        table: The schema to hold it to.
        sink: An open Arrow output stream; the caller closes it.

    Raises:
        SchemaMismatchError: If a column, type, key or row rule is violated.
    """
    valid = check_rows(frame, table, "the rows to be written")
    keys = table.primary_key()
    if keys:
        valid = valid.sort(keys)
    metadata = {
        "table": table.table_name,
        "version": table.version,
        "fingerprint": layout_fingerprint(table),
        "num_rows": valid.height,
    }
    arrow = valid.to_arrow(compat_level=pl.CompatLevel.oldest())
    merged = {**(arrow.schema.metadata or {}), METADATA_KEY: json.dumps(metadata).encode()}
    pq.write_table(
        arrow.replace_schema_metadata(merged),
        sink,
        compression="zstd",
        row_group_size=_ROWS_PER_GROUP,
        use_dictionary=[name for name in valid.columns if name not in table.distinct],
        # Neither Parquet nor Arrow's zstd notices a changed byte by itself.
        write_page_checksum=True,
    )


def read_part(source: pa.NativeFile, table: type[Table], where: str) -> pl.DataFrame:
    """Read one Parquet part and hold it to `table`.

    Args:
        source: An open, seekable Arrow input.
        table: The expected schema.
        where: How to name the file in an error.

    Returns:
        A frame with the table's columns and types.

    Raises:
        SchemaMismatchError: If `load_part` refuses the file, or a row breaks a rule of the schema.
    """
    return check_rows(load_part(source, table, where), table, where)


def load_part(source: pa.NativeFile, table: type[Table], where: str) -> pl.DataFrame:
    """Read one Parquet part as a table's present version, without looking at its rows.

    For many small parts: `check_rows` costs some milliseconds a call, so it is called once for all.

    Args:
        source: An open, seekable Arrow input.
        table: The expected schema.
        where: How to name the file in an error.

    Returns:
        A frame that `check_rows` is still to see.

    Raises:
        SchemaMismatchError: If the file is no Parquet file, is damaged or truncated, belongs to
            another table, or was written by a newer version.
    """
    try:
        arrow = pq.read_table(source, page_checksum_verification=True)
        stored = stored_metadata(arrow.schema, where)
        frame = _to_polars(arrow)
    except (pa.ArrowException, OSError, UnicodeError, pl.exceptions.PanicException) as error:
        msg = (
            f"{where} must be a whole Parquet file; got {error}. Delete the file and run again: "
            "rows that are stored elsewhere are kept, its own are made again."
        )
        raise SchemaMismatchError(msg) from error
    if stored["table"] != table.table_name:
        msg = (
            f"{where} must be a qcrd {table.table_name} table; its metadata says "
            f"{stored['table']!r}. Move the file out of the store or bring it in with "
            "`qcrd import`."
        )
        raise SchemaMismatchError(msg)
    version = stored["version"]
    if version > table.version:
        msg = (
            f"{where} must have schema version {table.version} or older; got {version}. It was "
            "written by a newer qcrd: upgrade this installation."
        )
        raise SchemaMismatchError(msg)
    if version < table.version:
        frame = table.migrate(frame, version)
    if stored["num_rows"] != frame.height:
        msg = (
            f"{where} must have the {stored['num_rows']} rows its metadata names; got "
            f"{frame.height}. Delete the file and run again."
        )
        raise SchemaMismatchError(msg)
    return frame


def _to_polars(arrow: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(arrow)
    if not isinstance(frame, pl.DataFrame):
        msg = "An Arrow table always converts to a DataFrame."
        raise TypeError(msg)
    return frame


def _describe(name: str, column: dy.Column) -> dict[str, Any]:
    limits = {key: getattr(column, key, None) for key in _LIMITS}
    described = {
        "name": name,
        "type": "Enum" if isinstance(column, dy.Enum) else str(column.dtype),
        "nullable": column.nullable,
        "primary_key": column.primary_key,
        "unit": (column.metadata or {}).get("unit"),
        **{key: value for key, value in limits.items() if value is not None},
    }
    if isinstance(column, dy.Enum):
        described["categories"] = list(column.categories)
    return described


def check_rows(frame: pl.DataFrame, table: type[Table], where: str) -> pl.DataFrame:
    """Hold rows to a table: columns, types, nulls, key and row rules.

    Args:
        frame: The rows; column order does not matter.
        table: The schema.
        where: How to name them in an error.

    Returns:
        The rows in the table's columns and types.

    Raises:
        SchemaMismatchError: If a rule is broken.
    """
    expected, got = set(table.column_names()), set(frame.columns)
    if expected != got:
        missing, extra = sorted(expected - got), sorted(got - expected)
        msg = (
            f"{where} must have the columns of {table.table_name} version {table.version}; "
            f"missing {missing}, unknown {extra}."
        )
        raise SchemaMismatchError(msg)
    wanted = table.create_empty().schema
    # A cast would write a struct or a list out as text.
    nested = [
        n for n, kind in frame.schema.items() if kind.is_nested() and not wanted[n].is_nested()
    ]
    if nested:
        name = nested[0]
        msg = f"{where} must have {name} as {wanted[name]}; got {frame.schema[name]}."
        raise SchemaMismatchError(msg)
    try:
        return table.validate(frame, cast=True)
    except (dy.exc.ValidationError, pl.exceptions.PolarsError) as error:
        detail = "; ".join(line.strip(" -") for line in str(error).splitlines())
        msg = f"{where} must satisfy {table.table_name} version {table.version}: {detail}."
        raise SchemaMismatchError(msg) from error
