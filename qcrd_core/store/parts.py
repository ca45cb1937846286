"""Parts of a folder as one lazy table, with an index of the questions in each part.

A million rationales fill about a thousand parts; opening all of them for one question would take
seconds. So the scratch folder keeps the range of question ids of every part, updated from the
footers of new and changed parts. Each part is sorted and holds neighbouring questions, so a
question is in few parts.
"""

import logging
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from data_schemas import SchemaMismatchError, Table
from data_schemas.table import stored_metadata
from qcrd_core.errors import DataError, StoreError
from qcrd_core.ids import content_hash
from qcrd_core.store.filesystem import access_error, is_access_error
from qcrd_core.store.store import Store

logger = logging.getLogger(__name__)

_Read = TypeVar("_Read")
_KEY = "question_id"
_THREADS = 8
_COLUMNS = {
    "path": pl.String,
    "size": pl.Int64,
    "mtime_ns": pl.Int64,
    "version": pl.Int32,
    "num_rows": pl.Int64,
    "low": pl.String,
    "high": pl.String,
}


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder with the parts of one table."""

    store: Store
    rel: str
    table: type[Table]
    index: pl.DataFrame
    """One row per part: path, version, num_rows, and the lowest and highest question_id."""

    @property
    def num_rows(self) -> int:
        """Rows of all parts."""
        return int(self.index["num_rows"].sum())

    @property
    def schema(self) -> pl.Schema:
        """Columns and types of the table's present version."""
        return self.table.create_empty().schema

    def scan(self, question_ids: Sequence[str] | None = None) -> pl.LazyFrame:
        """All rows, or those of some questions, in the table's present version.

        Args:
            question_ids: Questions to read; None reads all.

        Returns:
            A lazy frame with the table's columns; collecting it raises if a part is damaged, or of
            an older version that cannot be migrated.
        """
        chosen = self.index
        if question_ids is not None:
            hits = [
                (pl.col("low") <= question_id) & (pl.col("high") >= question_id)
                for question_id in question_ids
            ]
            chosen = chosen.filter(pl.any_horizontal(hits) if hits else pl.lit(value=False))
        old = chosen.filter(pl.col("version") < self.table.version)["path"].to_list()
        new = chosen.filter(pl.col("version") == self.table.version)["path"].to_list()
        # Part by part and only when collected: a store of ten million old rows is not held at once.
        frames = [
            pl.defer(partial(self.store.read_table, path, self.table), schema=self.schema)
            for path in old
        ]
        if new:
            frames.append(scan_parts(self.store, new, self.table))
        lazy = pl.concat(frames) if frames else self.table.create_empty().lazy()
        if question_ids is not None:
            lazy = lazy.filter(pl.col(_KEY).is_in(list(question_ids)))
        return lazy


def open_folder(store: Store, rel: str, table: type[Table]) -> Folder:
    """Index a folder of parts, or update its index.

    Args:
        store: The store.
        rel: A folder, or one part.
        table: Table of its parts.

    Returns:
        The folder; without parts if it is absent.

    Raises:
        DataError: If a part is damaged, foreign or newer than this qcrd.
        StoreError: If the store does not answer.
    """
    found = store.part_files(rel)
    place = store.scratch / "index" / f"{content_hash(store.url(), rel)}.parquet"
    known = _known(place)
    listed = pl.DataFrame(
        [(file.path, file.num_bytes, file.mtime_ns) for file in found],
        schema=dict(list(_COLUMNS.items())[:3]),
        orient="row",
    )
    kept = known.join(listed, on=["path", "size", "mtime_ns"], how="semi")
    fresh = listed.join(kept, on="path", how="anti")
    if fresh.is_empty() and kept.height == known.height:
        return Folder(store, rel, table, known)
    with ThreadPoolExecutor(_THREADS) as pool:
        rows = list(pool.map(lambda row: _footer(store, row, table), fresh.rows()))
    index = pl.concat([kept, pl.DataFrame(rows, schema=_COLUMNS, orient="row")]).sort("path")
    _remember(place, index)
    return Folder(store, rel, table, index)


def scan_parts(store: Store, paths: Sequence[str], table: type[Table]) -> pl.LazyFrame:
    """Parts of the table's present version as one lazy frame.

    Raises:
        StoreError: If the store does not answer.
    """
    schema = table.create_empty().schema
    if store.is_local:
        return pl.scan_parquet([store.local(path) for path in paths], schema=schema, glob=False)
    import pyarrow.dataset as ds  # it loads pandas, which no local store needs

    names = [store.path(path) for path in paths]
    try:
        dataset = ds.dataset(names, filesystem=store.file_system, format="parquet")
    except OSError as error:  # reads the first part only; `_footer` has checked all of them
        raise access_error(error, str(store), "read") from error
    return pl.scan_pyarrow_dataset(dataset).cast(schema)


def read_again(store: Store, folder: str, read: Callable[[], _Read]) -> _Read:
    """Read parts of a folder, and read again if another process joined some of them.

    This includes reads that succeed: a listing may miss both a new joined part and the small parts
    that it has replaced. So the result counts only if all parts listed before still exist.

    Args:
        store: The store.
        folder: The folder.
        read: Lists the folder and reads it; may be called several times.

    Returns:
        The result of `read`.

    Raises:
        DataError: If `read` raises it and the folder has not changed.
        StoreError: If `read` raises it and the folder has not changed.
    """
    while True:
        before = _names(store, folder)
        try:
            found = read()
        except (DataError, StoreError):
            if _names(store, folder) == before:
                raise
        else:
            if before <= _names(store, folder):
                return found
        logger.info("Another process joined parts during the read; reading again | %s", folder)


def collect(lazy: pl.LazyFrame, where: str) -> pl.DataFrame:
    """Collect a lazy frame over parts.

    Args:
        lazy: The query.
        where: Name of the source, for errors.

    Returns:
        Its rows.

    Raises:
        DataError: If a part is damaged, or was deleted after the listing.
        StoreError: If the store does not answer.
    """
    try:
        return lazy.collect(engine="streaming")
    except FileNotFoundError as error:
        msg = f"Another process joined parts of {where} while they were read. Run again."
        raise DataError(msg) from error
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,  # derives from BaseException alone
        pa.ArrowException,
        OSError,
    ) as error:
        if is_access_error(error):
            raise access_error(error, where, "read") from error
        detail = str(error).splitlines()[0]
        msg = (
            f"{where} must be intact; got {detail}. `qcrd validate` lists the damaged parts, and "
            "`qcrd validate --repair` moves them away."
        )
        raise DataError(msg) from error


def _names(store: Store, folder: str) -> set[str]:
    return {file.path for file in store.part_files(folder)}


def _footer(store: Store, row: tuple[str, int, int], table: type[Table]) -> tuple[object, ...]:
    path = row[0]
    where = f"{store}/{path}"
    try:
        with store.file_system.open_input_file(store.path(path)) as source:
            metadata = pq.ParquetFile(source).metadata
            stored = stored_metadata(metadata.schema.to_arrow_schema(), where)
    except SchemaMismatchError as error:
        raise DataError(str(error)) from error
    except (pa.ArrowException, OSError, UnicodeError) as error:
        if is_access_error(error):
            raise access_error(error, where, "read") from error
        msg = (
            f"{where} must be a whole Parquet file; got {str(error).splitlines()[0]}. "
            "`qcrd validate --repair` moves it away, and the next run makes its rows again."
        )
        raise DataError(msg) from error
    if stored["table"] != table.table_name or stored["version"] > table.version:
        msg = (
            f"{where} must be a qcrd {table.table_name} table of version {table.version} or older; "
            f"got {stored['table']} version {stored['version']}. Move it out of the store, or "
            "upgrade this installation."
        )
        raise DataError(msg)
    low, high = _range(metadata)
    return (*row, stored["version"], metadata.num_rows, low, high)


def _range(metadata: pq.FileMetaData) -> tuple[str, str]:
    """Lowest and highest question_id; the widest range if the file has no statistics."""
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    if _KEY not in names:
        return "", "\U0010ffff"
    column = names.index(_KEY)
    lows, highs = [], []
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(column).statistics
        if statistics is None or not statistics.has_min_max:
            return "", "\U0010ffff"
        lows.append(statistics.min)
        highs.append(statistics.max)
    return min(lows, default=""), max(highs, default="")


def _known(place: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(place, schema=_COLUMNS)
    except (OSError, pl.exceptions.PolarsError):
        return pl.DataFrame(schema=_COLUMNS)


def _remember(place: Path, index: pl.DataFrame) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f"_tmp-{uuid.uuid4().hex}-{place.name}")
        index.write_parquet(temporary)
        temporary.replace(place)
    except OSError as error:
        logger.warning("The index of parts could not be saved; it will be built again: %s", error)
