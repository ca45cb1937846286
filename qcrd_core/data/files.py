"""Rows of a user's file: JSON lines, a JSON array, CSV or Parquet, according to its ending."""

import re
from pathlib import Path
from typing import Any

import polars as pl
from pydantic_core import from_json

from qcrd_core.config.files import check_ordinary
from qcrd_core.errors import DataError

Row = dict[str, Any]
# What is no half of a pair is kept: an escaped backslash, and a whole pair.
_HALF_PAIR = re.compile(
    r"(\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})|\\ud[89a-f][0-9a-f]{2}", re.IGNORECASE
)
ENDINGS = (".jsonl", ".json", ".csv", ".parquet")


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
            of objects), .csv (with a header; every value is a text) or .parquet.

    Returns:
        One mapping per row, at least one.

    Raises:
        DataError: If the file is absent, unreadable, of another kind, malformed or without rows.
    """
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        msg = f"A data file must end in {', '.join(ENDINGS)}; got {path}. Convert or rename it."
        raise DataError(msg)
    try:
        check_ordinary(path)
        rows = reader(path)
    except OSError as error:
        msg = f"{path} must be a readable file; got {error.strerror or error}. Check the path."
        raise DataError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path} must be UTF-8 text; got an invalid byte at {error.start}. Convert it."
        raise DataError(msg) from error
    if not rows:
        msg = f"{path} must hold at least one row; got none. Check that the file is complete."
        raise DataError(msg)
    return rows


def _jsonl(path: Path) -> list[Row]:
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    return [
        _object(line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _object(line: str, where: str) -> Row:
    try:
        row = parse_json(line)
    except ValueError as error:
        msg = f"Each line must be a JSON object; got {error} ({where}). Correct the line."
        raise DataError(msg) from error
    return _checked(row, where)


def _json(path: Path) -> list[Row]:
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise
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
    return [_checked(row, f"{path}, row {number}") for number, row in enumerate(content, start=1)]


def _checked(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        msg = f"Each row must be a JSON object; got {type(row).__name__} ({where}). Correct it."
        raise DataError(msg)
    return row


def _csv(path: Path) -> list[Row]:
    return _polars(path, lambda: pl.read_csv(path, infer_schema=False))


def _parquet(path: Path) -> list[Row]:
    return _polars(path, lambda: pl.read_parquet(path))


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
