"""Rows of a user's file: JSON lines, a JSON array, CSV, TSV or Parquet, according to its ending."""

import codecs
import csv
import gzip
import io
import re
import zlib
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from pydantic_core import from_json

from qcrd_core.config.files import check_ordinary
from qcrd_core.errors import DataError

Row = dict[str, Any]
# What is no half of a pair is kept: an escaped backslash, and a whole pair.
_HALF_PAIR = re.compile(
    r"(\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})|\\ud[89a-f][0-9a-f]{2}", re.IGNORECASE
)
ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_MOST_ROWS, _MOST_BYTES = 20_000, 16 * 1024 * 1024
"""What is read of a file to look at it: 16 MiB take about two seconds."""
_PACKED = (".gz", ".zst")


def cell(row: Row, name: str) -> Any:
    """A row's value by the name of its column, or by a path into it such as `answers.text.0`.

    Returns:
        None if there is no such value.
    """
    if name in row or "." not in name:
        return row.get(name)
    value: Any = row
    for part in name.split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def has_column(present: set[str], name: str) -> bool:
    """Whether a file with these columns has one, or the one that a path begins with."""
    return name in present or name.partition(".")[0] in present


def parse_json(text: str) -> Any:
    """Parse JSON. Half of a surrogate pair, which no text can hold, becomes U+FFFD.

    Raises:
        ValueError: If the text is not JSON.
    """
    try:
        return from_json(text)
    except ValueError:
        mended = _HALF_PAIR.sub(lambda match: match[1] or "\\ufffd", text)
        if mended == text:
            raise
    return from_json(mended)


def read_rows(path: Path) -> list[Row]:
    """Read a whole file.

    Args:
        path: File that ends in .jsonl (one object per line, empty lines allowed), .json (an array
            of objects), .csv or .tsv (with a header; every value is a text) or .parquet; the texts
            optionally with .gz or .zst after it. Texts are UTF-8, or UTF-16 with its mark.

    Returns:
        One mapping per row, at least one.

    Raises:
        DataError: If the file is absent, unreadable, of another kind, malformed or without rows.
    """
    return _read(path, None)[0]


def read_beginning(path: Path) -> tuple[list[Row], bool]:
    """Read the first 20,000 rows of a file, or those in its first 16 MiB.

    Args:
        path: As for `read_rows`. A JSON array is read as a whole first.

    Returns:
        At least one row, and whether these are all rows of the file.

    Raises:
        DataError: As `read_rows`.
    """
    rows, is_whole = _read(path, _MOST_BYTES)
    return rows[:_MOST_ROWS], is_whole and len(rows) <= _MOST_ROWS


def _read(path: Path, most: int | None) -> tuple[list[Row], bool]:
    """Rows of a file or, if it is longer than `most` bytes, of its beginning; and which it is."""
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    reader = readers.get(kind_of(path))
    if reader is None:
        msg = (
            f"A data file must end in {', '.join(ENDINGS)}, or in one of these and "
            f"{' or '.join(_PACKED)}; got {path}. Convert or rename it."
        )
        raise DataError(msg)
    try:
        check_ordinary(path)
        rows, is_whole = reader(path, most)
    except OSError as error:
        msg = f"{path} must be a readable file; got {error.strerror or error}. Check the path."
        raise DataError(msg) from error
    if not rows:
        msg = f"{path} must hold at least one row; got none. Check that the file is complete."
        raise DataError(msg)
    return rows, is_whole


def read_text(path: Path) -> str:
    """Read a file as text: unpacked, UTF-8 or UTF-16, without its byte order mark.

    Raises:
        DataError: If it is not a whole packed file, or holds something else than text.
        OSError: If it cannot be read.
    """
    return _beginning(path, None)[0]


def _beginning(path: Path, most: int | None) -> tuple[str, bool]:
    """The text of a file, or the whole lines in its first `most` bytes; and which it is."""
    content = _unpacked(path, most)
    is_whole = most is None or len(content) <= most
    encoding = (
        "utf-16" if content[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE} else "utf-8-sig"
    )
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(content, final=is_whole)
    except UnicodeDecodeError as error:
        name = "UTF-16" if encoding == "utf-16" else "UTF-8"
        msg = f"{path} must be {name} text; got an invalid byte at {error.start}. Convert it."
        raise DataError(msg) from error
    return (text if is_whole else text[: text.rfind("\n") + 1]), is_whole


def _unpacked(path: Path, most: int | None) -> bytes:
    """The content of a file, or one byte more than `most` of it."""
    size = -1 if most is None else most + 1
    ending = path.suffix.lower()
    try:
        if ending == ".gz":
            with gzip.open(path) as packed:
                return packed.read(size)
        if ending == ".zst":
            with pa.input_stream(str(path), compression="zstd") as stream:
                return bytes(stream.read(None if most is None else size))
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{path} must be a whole {path.suffix} file; got {error}. Write it again."
        raise DataError(msg) from error
    with path.open("rb") as plain:
        return plain.read(size)


def kind_of(path: Path) -> str:
    """What the content is, by the name without `.gz` or `.zst`; empty if it is no data file."""
    ending = path.suffix.lower()
    kind = Path(path.stem).suffix.lower() if ending in _PACKED else ending
    return kind if kind in ENDINGS and (kind == ending or kind != ".parquet") else ""


def _jsonl(path: Path, most: int | None) -> tuple[list[Row], bool]:
    text, is_whole = _beginning(path, most)
    rows = [
        _object(line, f"{path}, line {number}")
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    return rows, is_whole


def _object(line: str, where: str) -> Row:
    try:
        row = parse_json(line)
    except ValueError as error:
        msg = f"Each line must be a JSON object; got {error} ({where}). Correct the line."
        raise DataError(msg) from error
    return _checked(row, where)


def _json(path: Path, most: int | None) -> tuple[list[Row], bool]:
    del most  # the beginning of an array is not JSON
    text = read_text(path)
    try:
        content = parse_json(text)
    except ValueError as error:
        msg = (
            f"{path} must be valid JSON; got {error}. If it holds one object per line, rename it "
            "to .jsonl."
        )
        raise DataError(msg) from error
    if not isinstance(content, list):
        msg = (
            f"{path} must hold an array of objects; got {type(content).__name__}. Put the objects "
            "into one array."
        )
        raise DataError(msg)
    rows = [_checked(row, f"{path}, row {number}") for number, row in enumerate(content, start=1)]
    return rows, True


def _checked(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        msg = f"Each row must be a JSON object; got {type(row).__name__} ({where}). Correct it."
        raise DataError(msg)
    return row


def _csv(path: Path, most: int | None) -> tuple[list[Row], bool]:
    text, is_whole = _beginning(path, most)
    while not is_whole and text.count('"') % 2:  # the last line is not the end of a row
        text = text[: text.rfind("\n", 0, -1) + 1]
    separator = "\t" if kind_of(path) == ".tsv" else ","
    rows = _polars(
        path, lambda: pl.read_csv(text.encode(), infer_schema=False, separator=separator)
    )
    last = list(rows[0])[-1] if rows else ""
    if any(row[last] is None for row in rows):
        _check_widths(path, text, separator)
    return rows, is_whole


def _check_widths(path: Path, text: str, separator: str) -> None:
    """Refuse rows with fewer values than columns, which polars fills with nulls."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    width = len(next(lines))
    for number, line in enumerate(lines, start=1):
        if line and len(line) < width:
            msg = (
                f"Every row must have {width} values, as the header has; got {len(line)} ({path}, "
                f"row {number}). Write the empty ones as well."
            )
            raise DataError(msg)


def _parquet(path: Path, most: int | None) -> tuple[list[Row], bool]:
    num_rows = None if most is None else _MOST_ROWS + 1
    return _polars(path, lambda: pl.read_parquet(path, n_rows=num_rows)), True


def _polars(path: Path, read: Any) -> list[Row]:
    try:
        frame: pl.DataFrame = read()
    except pl.exceptions.NoDataError:
        return []
    except pl.exceptions.PolarsError as error:
        detail = str(error).splitlines()[0]
        msg = f"{path} must be a whole {path.suffix} file; got {detail}. Write it again."
        raise DataError(msg) from error
    return frame.to_dicts()
