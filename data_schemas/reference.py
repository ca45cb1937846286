"""Write the reference of the tables: their layouts as JSON, and docs/schemas.md.

    python -m data_schemas

writes docs/schemas.md, and stores the layout of every new table version in tests/schemas. A stored
layout is never overwritten, because files of that version exist.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_schemas.table import Table, layout

_LIMITS = {
    "min": "at least",
    "max": "at most",
    "min_exclusive": "above",
    "max_exclusive": "below",
    "min_length": "length at least",
    "max_length": "length at most",
    "regex": "of the form",
}


class LayoutChangedError(ValueError):
    """A table's layout differs from the one stored for its version."""


def stored_path(folder: Path, table: type[Table], version: int) -> Path:
    """Path of the stored layout of one version of a table."""
    return folder / f"{table.table_name}.v{version}.json"


def store_layout(table: type[Table], folder: Path) -> Path | None:
    """Store the layout and the example row of a table's current version.

    Args:
        table: The table.
        folder: tests/schemas.

    Returns:
        The file that was written; None if the same layout is already stored.

    Raises:
        LayoutChangedError: If another layout is stored for this version.
    """
    path = stored_path(folder, table, table.version)
    content = {**layout(table), "example": dict(table.example)}
    text = json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n"
    if path.exists():
        check_layout(table, path)
        return None
    path.write_text(text, encoding="utf-8")
    return path


def check_layout(table: type[Table], path: Path) -> None:
    """Compare a table with the stored layout of its version.

    Args:
        table: The table.
        path: The stored layout.

    Raises:
        LayoutChangedError: If they differ. The message says where, and what to do.
    """
    stored = json.loads(path.read_text(encoding="utf-8"))
    found = list(_differences(stored, json.loads(json.dumps(layout(table)))))
    if found:
        msg = (
            f"The layout of {table.__name__} differs from the one stored for version "
            f"{table.version} in {path}: {'; '.join(found)}. Raise its version to "
            f"{table.version + 1}, describe the change in `changes`, migrate older rows in "
            "`migrate`, then run `python -m data_schemas`."
        )
        raise LayoutChangedError(msg)


def render_reference(tables: tuple[type[Table], ...]) -> str:
    """Describe all tables in Markdown.

    Args:
        tables: The tables, in the order of the page.

    Returns:
        The content of docs/schemas.md.
    """
    parts = [_HEAD, *(_section(table) for table in tables)]
    return "\n\n".join(parts) + "\n"


_HEAD = """\
# The tables

Written by `python -m data_schemas` from `data_schemas/`. Edit the tables there, not this page.

Every table is a Parquet file, compressed with zstd and sorted by its key. Its row groups hold some
thousand rows and have statistics, so a filter on a key reads little. The metadata key `qcrd` of
each file holds the table's name, its version, the fingerprint of its layout and the number of rows.
qcrd migrates older versions when it reads them, and refuses newer ones. polars, pyarrow, DuckDB,
pandas and `datasets` can read the files directly."""


def _section(table: type[Table]) -> str:
    primary_key = ", ".join(f"`{name}`" for name in table.primary_key())
    rows = ["| column | type | unit | meaning | example |", "|---|---|---|---|---|"]
    described = layout(table)
    rows += [_row(column, table) for column in described["columns"]]
    rules = [f"- {rule.replace('_', ' ')}" for rule in described["row_rules"]]
    history = [f"- {version}: {text}" for version, text in sorted(table.changes.items())]
    return "\n".join(
        [
            f"## {table.table_name}",
            "",
            _escape(" ".join((table.__doc__ or "").split())),
            "",
            f"Version {table.version}. Key: {primary_key}.",
            "",
            *rows,
            *(["", "Rules for a row:", "", *rules] if rules else []),
            "",
            "Versions:",
            "",
            *history,
        ]
    )


def _row(column: dict[str, Any], table: type[Table]) -> str:
    name = column["name"]
    value = table.example.get(name)
    cells = [
        f"`{name}`",
        _kind(column),
        column["unit"] or "",
        table.columns()[name].description or "",
        "" if value is None else f"`{str(value).strip()}`",
    ]
    return "| " + " | ".join(_escape(cell) for cell in cells) + " |"


def _kind(column: dict[str, Any]) -> str:
    kind = " or ".join(column["categories"]) if "categories" in column else column["type"]
    limits = [f"{words} {column[key]}" for key, words in _LIMITS.items() if key in column]
    return ", ".join([kind, *limits, *(["null allowed"] if column["nullable"] else [])])


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _differences(stored: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    before = {column["name"]: column for column in stored["columns"]}
    after = {column["name"]: column for column in found["columns"]}
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after:
            yield f"column {name} was removed"
        elif name not in before:
            yield f"column {name} is new"
        else:
            for key in before[name]:
                if before[name][key] != after[name].get(key):
                    yield f"{name}.{key} was {before[name][key]}, now {after[name].get(key)}"
    if stored["row_rules"] != found["row_rules"]:
        yield f"row rules were {stored['row_rules']}, now {found['row_rules']}"
