"""Join the small parts of a generation into large ones.

A run writes a part every few dozen questions, so that a crash loses little; ten million rationales
are then fifteen thousand files, and to open each takes longer than to read what is wanted. So a run
joins them when it has sampled, where there are many (`join_many`), and `qcrd compact` at any time.

Joined parts follow the rules of all parts: immutable, named after their keys, written whole before
the small ones go. Killed in between, some rows are there twice until the next time, and readers
take either. Who reads meanwhile may look for a part that has gone: `parts.read_again`.
Two who join at once lose nothing: each deletes only parts whose rows it has written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from data_schemas import Rationales
from qcrd_core.errors import StoreError
from qcrd_core.progress import Bar, progress
from qcrd_core.store.parts import open_folder, read_again
from qcrd_core.store.store import Store, part_name

ROWS_PER_PART = 131_072
MANY = 512
"""Small parts that are left alone: to open one takes half a millisecond."""

_NAMED_BY = ("question_id", "sample_idx", "prompt_hash")


@dataclass(frozen=True)
class Compacted:
    """What was joined."""

    num_before: int
    """Parts there were."""
    num_after: int
    """Parts there are."""
    num_twice: int
    """Rows that stood in two parts and are there once now."""


def join_many(store: Store, folder: str) -> Compacted | None:
    """Join the parts of a generation if more than `MANY` of them are small.

    Args:
        store: The store.
        folder: The generation's folder.

    Returns:
        Counts; None if nothing was to be done.

    Raises:
        DataError: If a part is damaged; nothing of its group is changed.
        StoreError: If the store refuses.
    """
    index = _index(store, folder)
    if index.filter(pl.col("num_rows") < ROWS_PER_PART // 2).height <= MANY:
        return None
    with progress("Join parts", int(index["num_rows"].sum()), "rows") as bar:
        return compact(store, folder, bar)


def compact(store: Store, folder: str, bar: Bar, rows_per_part: int = ROWS_PER_PART) -> Compacted:
    """Join neighbouring parts of a generation.

    Args:
        store: The store.
        folder: The generation's folder.
        bar: Advanced by the rows of each part.
        rows_per_part: About how many rows a joined part has at most.

    Returns:
        Counts.

    Raises:
        DataError: If a part is damaged; nothing of its group is changed.
        StoreError: If the store refuses.
    """
    num_before = num_after = num_twice = 0
    for paths, num_rows in _groups(store, folder, rows_per_part):
        num_before += len(paths)
        frame = _read(store, paths) if len(paths) > 1 else None
        if frame is None:
            num_after += sum(store.exists(path) for path in paths)
        else:
            unique = frame.unique(_NAMED_BY, keep="first", maintain_order=True)
            num_twice += frame.height - unique.height
            num_after += _replace(store, folder, paths, unique)
        bar.advance(num_rows)
    return Compacted(num_before, num_after, num_twice)


def _index(store: Store, folder: str) -> pl.DataFrame:
    return read_again(store, folder, lambda: open_folder(store, folder, Rationales).index)


def _read(store: Store, paths: Sequence[str]) -> pl.DataFrame | None:
    """Rows of some parts; None where another process has just joined one of them."""
    try:
        return pl.concat([store.read_table(path, Rationales) for path in paths])
    except StoreError:
        if all(store.exists(path) for path in paths):
            raise
        return None


def _groups(store: Store, folder: str, rows_per_part: int) -> Iterator[tuple[list[str], int]]:
    """Neighbouring parts that together are about as large as one should be, and their rows."""
    index = _index(store, folder).sort("low", "path")
    paths: list[str] = []
    total = 0
    for path, num_rows in index.select("path", "num_rows").rows():
        if paths and total + num_rows > rows_per_part:
            yield paths, total
            paths, total = [], 0
        paths.append(path)
        total += num_rows
    if paths:
        yield paths, total


def _replace(store: Store, folder: str, old: Sequence[str], frame: pl.DataFrame) -> int:
    written = []
    while frame.height:
        # A key may be there for an older text of its question too; a part holds each key once.
        rows = frame.unique(Rationales.primary_key(), keep="first", maintain_order=True)
        path = f"{folder}/{part_name(rows.select(_NAMED_BY))}"
        store.write_table(path, rows, Rationales)
        written.append(path)
        frame = frame.join(rows, on=_NAMED_BY, how="anti", nulls_equal=True)
    for path in set(old) - set(written):
        store.delete(path)
    return len(written)
