"""Export rationales as JSON lines, CSV, Parquet, or a Hugging Face data set folder.

The rows are streamed, so a million rows need no more memory than a thousand.
"""

from pathlib import Path

import polars as pl

from qcrd_core.errors import ConfigError, DataError
from qcrd_core.inspect.find import matching
from qcrd_core.inspect.view import ROW_COLUMNS, View
from qcrd_core.store.target import new_target

_SPLITS = ("train", "validation", "test")
_CARD = """\
---
pretty_name: {name}
configs:
- config_name: default
  data_files:
{files}
---

# Rationales of {name}

{num_rows} rationales, exported by qcrd. One row per rationale, including failures (`status`).

{where}| column | type |
|---|---|
{columns}

Load it with `datasets.load_dataset("{folder}")`.
"""


def export_rows(view: View, target: Path, where: str | None) -> int:
    """Write a view's rows.

    Args:
        view: A store or a run.
        target: A new .jsonl, .csv or .parquet file, or a new folder. A folder becomes a Hugging
            Face data set with one file per split and a card.
        where: SQL expression over ROW_COLUMNS; None takes all rows.

    Returns:
        Number of rows written.

    Raises:
        ConfigError: If the expression is not valid, or the target exists or has another ending.
        DataError: If a part is damaged, or the target cannot be written.
    """
    lazy = matching(view, where, ROW_COLUMNS)
    with new_target(target, "--export") as temporary:
        try:
            if target.suffix:
                num_rows = _write_file(lazy, temporary, target.suffix)
            else:
                num_rows = _write_folder(lazy, temporary, view, (target.name, where))
        except pl.exceptions.PolarsError as error:
            msg = f"Exporting {view.name} to {target} failed: {str(error).splitlines()[0]}."
            raise DataError(msg) from error
    return num_rows


def _write_file(lazy: pl.LazyFrame, path: Path, ending: str) -> int:
    if ending == ".jsonl":
        lazy.sink_ndjson(path)
        return _count(pl.scan_ndjson(path, infer_schema_length=1).select(pl.len()))
    if ending == ".csv":
        lazy.sink_csv(path)
        return _count(pl.scan_csv(path, infer_schema=False).select(pl.len()))
    if ending == ".parquet":
        lazy.sink_parquet(path)
        return _count(pl.scan_parquet(path).select(pl.len()))
    msg = f"--export must end in .jsonl, .csv or .parquet, or be a folder; got {ending}."
    raise ConfigError(msg)


def _write_folder(lazy: pl.LazyFrame, path: Path, view: View, card: tuple[str, str | None]) -> int:
    name, where = card
    (path / "data").mkdir(parents=True)
    counts = {}
    for split in _SPLITS:
        file = path / "data" / f"{split}-00000-of-00001.parquet"
        lazy.filter(pl.col("split") == split).sink_parquet(file)
        counts[split] = _count(pl.scan_parquet(file).select(pl.len()))
        if not counts[split]:
            file.unlink()
    if not sum(counts.values()):
        msg = f"There is nothing to export: no row of {view.name} meets the condition {where!r}."
        raise ConfigError(msg)
    files = [
        f"  - split: {split}\n    path: data/{split}-*.parquet" for split in counts if counts[split]
    ]
    schema = lazy.collect_schema()
    text = _CARD.format(
        name=view.name.rpartition("/")[2],
        folder=name,
        files="\n".join(files),
        num_rows=f"{sum(counts.values()):,}",
        where="" if where is None else f"Only rows where `{where}`.\n\n",
        columns="\n".join(f"| `{column}` | {kind} |" for column, kind in schema.items()),
    )
    (path / "README.md").write_text(text, encoding="utf-8")
    return sum(counts.values())


def _count(lazy: pl.LazyFrame) -> int:
    return int(lazy.collect().item())
