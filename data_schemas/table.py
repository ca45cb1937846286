"""What all tables share: the version in each file, and validation on writing and reading.

`write_part` and `read_part` turn a typed frame into Parquet bytes and back. `qcrd_core.store.store`
decides where the bytes are stored (local folder, object store).

Version rule: a reader accepts its own version, migrates older ones with `Table.migrate`, and
refuses newer ones with an explanation.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas.light import dy

METADATA_KEY = b"qcrd"

# Small enough to find one question without reading much, and large enough for zstd: compared with
# a single group, groups of 8,192 rows made real samples 60% larger, groups of 32,768 rows 7%.
_ROWS_PER_GROUP = 32_768
_LIMITS = ("min", "max", "min_exclusive", "max_exclusive", "min_length", "max_length", "regex")


class SchemaMismatchError(ValueError):
    """A Parquet file is not the table it should be."""


class Table(dy.Schema):
    """Base of all tables. Subclasses set the class variables below and declare columns.

    A column's unit is in its `metadata`. A new version needs an entry in `changes` and a branch in
    `migrate`. Then run `python -m data_schemas`, which stores its layout and writes
    docs/schemas.md.
    """

    table_name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    changes: ClassVar[Mapping[int, str]] = {1: "First version."}
    """What each version changed, from 1 to `version`."""
    example: ClassVar[Mapping[str, Any]] = {}
    """One valid row."""
    distinct: ClassVar[frozenset[str]] = frozenset()
    """Columns whose values hardly ever repeat, so a dictionary would only make files larger."""

    @classmethod
    def migrate(cls, frame: pl.DataFrame, version: int) -> pl.DataFrame:
        """Bring a frame of an older `version` to the current one.

        Args:
            frame: Rows as they are in the file.
            version: The version in the file's metadata, lower than `cls.version`.

        Returns:
            The frame in the current version's columns.

        Raises:
            SchemaMismatchError: If no migration from `version` exists.
        """
        del frame
        msg = f"{cls.table_name} version {version} cannot be migrated to version {cls.version}."
        raise SchemaMismatchError(msg)


def layout(table: type[Table]) -> dict[str, Any]:
    """Describe a table's columns. A change of this description needs a new version.

    Returns:
        A mapping that JSON can hold: table, version, columns (name, type, nullable, primary_key,
        unit, limits) and the names of its row rules.
    """
    return {
        "table": table.table_name,
        "version": table.version,
        "columns": [_describe(name, column) for name, column in table.columns().items()],
        "row_rules": sorted(table._schema_validation_rules()),
    }


def layout_fingerprint(table: type[Table]) -> str:
    """Hash a table's layout, for the metadata of every file."""
    text = json.dumps(layout(table), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def stored_metadata(schema: pa.Schema, where: str) -> dict[str, Any]:
    """Read qcrd's metadata of a file: table, version, num_rows, fingerprint.

    Args:
        schema: The file's Arrow schema.
        where: Name of the file for error messages.

    Returns:
        The metadata. The fingerprint is None in files of qcrd 0.1.

    Raises:
        SchemaMismatchError: If the metadata is absent or damaged.
    """
    raw = (schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        msg = (
            f"{where} was not written by qcrd: it has no qcrd metadata. Import other files with "
            "`qcrd import`."
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
    except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        msg = f"{where} has damaged qcrd metadata: {raw!r:.80}. Delete the file and run again."
        raise SchemaMismatchError(msg) from error


def write_part(frame: pl.DataFrame, table: type[Table], sink: pa.NativeFile) -> None:
    """Validate `frame` as `table`, and write it as zstd Parquet with the table's name and version.

    Args:
        frame: Rows with exactly the table's columns; column order does not matter.
        table: The table's schema.
        sink: An open Arrow output stream; the caller closes it.

    Raises:
        SchemaMismatchError: If a column, type, key or row rule is violated.
    """
    valid = check_rows(frame, table, "Rows to write")
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
        # Without checksums, neither Parquet nor Arrow's zstd notices a changed byte.
        write_page_checksum=True,
    )


def read_part(source: pa.NativeFile, table: type[Table], where: str) -> pl.DataFrame:
    """Read one Parquet part, and validate it as `table`.

    Args:
        source: An open, seekable Arrow input.
        table: The expected schema.
        where: Name of the file for error messages.

    Returns:
        A frame with the table's columns and types.

    Raises:
        SchemaMismatchError: If `load_part` refuses the file, or a row breaks a rule of the schema.
    """
    return check_rows(load_part(source, table, where), table, where)


def load_part(source: pa.NativeFile, table: type[Table], where: str) -> pl.DataFrame:
    """Read one Parquet part as a table's current version, without validating its rows.

    This is for many small parts: `check_rows` takes some milliseconds per call, so the caller calls
    it once for all parts.

    Args:
        source: An open, seekable Arrow input.
        table: The expected schema.
        where: Name of the file for error messages.

    Returns:
        A frame that must still go through `check_rows`.

    Raises:
        SchemaMismatchError: If the file is not a Parquet file, is damaged or truncated, belongs to
            another table, or was written by a newer version.
    """
    try:
        # Not `read_table`, which loads pandas.
        arrow = pq.ParquetFile(source, page_checksum_verification=True).read()
        stored = stored_metadata(arrow.schema, where)
        frame = _to_polars(arrow)
    except (pa.ArrowException, OSError, UnicodeError, pl.exceptions.PanicException) as error:
        msg = (
            f"{where} must be a whole Parquet file; got {error}. Delete the file and run again: "
            "only its rows are made again."
        )
        raise SchemaMismatchError(msg) from error
    if stored["table"] != table.table_name:
        msg = (
            f"{where} must be a qcrd {table.table_name} table; got a {stored['table']} table. Move "
            "the file out of this folder."
        )
        raise SchemaMismatchError(msg)
    version = stored["version"]
    if version > table.version:
        msg = (
            f"{where} must have schema version {table.version} or older; got {version}. A newer "
            "qcrd wrote it: upgrade this installation."
        )
        raise SchemaMismatchError(msg)
    if version < table.version:
        frame = table.migrate(frame, version)
    if stored["num_rows"] != frame.height:
        msg = (
            f"{where} must have {stored['num_rows']} rows, as its metadata says; got "
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
    """Validate rows as a table: columns, types, nulls, key and row rules.

    Args:
        frame: The rows; column order does not matter.
        table: The table's schema.
        where: Name of the rows for error messages.

    Returns:
        The rows with the table's columns and types.

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
    wanted = _schema(table)
    # A cast would turn a struct or a list into text.
    nested = [
        n for n, kind in frame.schema.items() if kind.is_nested() and not wanted[n].is_nested()
    ]
    if nested:
        name = nested[0]
        msg = f"{where} must have {name} as {wanted[name]}; got {frame.schema[name]}."
        raise SchemaMismatchError(msg)
    try:
        cast = frame.select(wanted.names()).cast(wanted)
        if cast.select(_holds(table)).item():
            return cast
    except pl.exceptions.PolarsError:
        pass  # explained below
    try:
        # It finds the rows at fault, which takes ten times as long.
        return table.validate(frame, cast=True)
    except (dy.exc.ValidationError, pl.exceptions.PolarsError) as error:
        detail = "; ".join(line.strip(" -") for line in str(error).splitlines())
        msg = f"{where} must satisfy {table.table_name} version {table.version}: {detail}."
        raise SchemaMismatchError(msg) from error


@cache
def _schema(table: type[Table]) -> pl.Schema:
    return table.create_empty().schema


@cache
def _holds(table: type[Table]) -> pl.Expr:
    """Whether all rows of a frame with the table's types keep all rules, as `validate` has them."""
    rules = table._validation_rules(with_cast=False).values()
    return pl.all_horizontal(rule.expr.fill_null(value=True) for rule in rules).all()
