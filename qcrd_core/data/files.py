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
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    reader = readers.get(_ending(path))
    if reader is None:
        msg = (
            f"A data file must end in {', '.join(ENDINGS)}, or in one of these and "
            f"{' or '.join(_PACKED)}; got {path}. Convert or rename it."
        )
        raise DataError(msg)
    try:
        check_ordinary(path)
        rows = reader(path)
    except OSError as error:
        msg = f"{path} must be a readable file; got {error.strerror or error}. Check the path."
        raise DataError(msg) from error
    if not rows:
        msg = f"{path} must hold at least one row; got none. Check that the file is complete."
        raise DataError(msg)
    return rows


def parts_of(path: Path) -> list[Path]:
    """List the files that a path names.

    Args:
        path: A file, which is then the only one; a pattern such as `train_*.json`; or a folder of
            data files.

    Returns:
        In the order of their names, with numbers in them by value: part 10 after part 9.

    Raises:
        DataError: If there is no such file, or the files of a folder are of several kinds.
    """
    if path.is_dir():
        return _files_in(path)
    if "*" not in path.name or path.exists():
        return [path]
    found = sorted(path.parent.glob(path.name), key=_by_number)
    if not found:
        msg = f"{path} must fit at least one file; got none. Check the pattern."
        raise DataError(msg)
    return found


def files_of(paths: Path | tuple[Path, ...]) -> list[Path]:
    """The files that one or several paths name, each as in `parts_of`.

    Raises:
        DataError: As `parts_of`, or if a file is named twice.
    """
    found = [
        part for path in ((paths,) if isinstance(paths, Path) else paths) for part in parts_of(path)
    ]
    seen: set[Path] = set()
    for path in found:
        if path in seen:
            msg = f"Each file must be named once; got {path} twice. Remove one of them."
            raise DataError(msg)
        seen.add(path)
    return found


def _files_in(folder: Path) -> list[Path]:
    """The data files of a folder. What begins with `_` or `.` is another program's note."""
    try:
        names = [path for path in folder.iterdir() if path.name[0] not in "_."]
    except OSError as error:
        msg = f"{folder} must be a readable folder; got {error.strerror}. Check its permissions."
        raise DataError(msg) from error
    found = sorted((path for path in names if _ending(path)), key=_by_number)
    kinds = sorted({_ending(path) for path in found})
    if len(kinds) != 1:
        msg = (
            f"A folder must hold data files of one kind ({', '.join(ENDINGS)}); got "
            f"{' and '.join(kinds) or 'none'} ({folder}). Name the files, or a pattern such as "
            f"{folder.name}/*.jsonl."
        )
        raise DataError(msg)
    return found


def _by_number(path: Path) -> list[tuple[int, str]]:
    pieces = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]


def read_text(path: Path) -> str:
    """Read a file as text: unpacked, UTF-8 or UTF-16, without its byte order mark.

    Raises:
        DataError: If it is not a whole packed file, or holds something else than text.
        OSError: If it cannot be read.
    """
    content = _unpacked(path)
    encoding = (
        "utf-16" if content[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE} else "utf-8-sig"
    )
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-16" if encoding == "utf-16" else "UTF-8"
        msg = f"{path} must be {name} text; got an invalid byte at {error.start}. Convert it."
        raise DataError(msg) from error


def _unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix.lower() not in _PACKED:
        return content
    try:
        if path.suffix.lower() == ".gz":
            return gzip.decompress(content)
        with pa.input_stream(pa.BufferReader(content), compression="zstd") as stream:
            return bytes(stream.read())
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{path} must be a whole {path.suffix} file; got {error}. Write it again."
        raise DataError(msg) from error


def _ending(path: Path) -> str:
    """What the content is, by the name without `.gz` or `.zst`; empty if it is no data file."""
    ending = path.suffix.lower()
    kind = Path(path.stem).suffix.lower() if ending in _PACKED else ending
    return kind if kind in ENDINGS and (kind == ending or kind != ".parquet") else ""


def _jsonl(path: Path) -> list[Row]:
    lines = read_text(path).split("\n")
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
    return [_checked(row, f"{path}, row {number}") for number, row in enumerate(content, start=1)]


def _checked(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        msg = f"Each row must be a JSON object; got {type(row).__name__} ({where}). Correct it."
        raise DataError(msg)
    return row


def _csv(path: Path) -> list[Row]:
    text = read_text(path)
    separator = "\t" if _ending(path) == ".tsv" else ","
    rows = _polars(
        path, lambda: pl.read_csv(text.encode(), infer_schema=False, separator=separator)
    )
    last = list(rows[0])[-1] if rows else ""
    if any(row[last] is None for row in rows):
        _check_widths(path, text, separator)
    return rows


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
