"""Join the small parts of generations into large ones.

A run writes a part every few dozen questions, so that a crash loses little; ten million rationales
are then fifteen thousand files, and to open each takes longer than to read what is wanted. Joined
parts follow the rules of all parts: immutable, named after their keys, written whole before the
small ones go. Cut short, some rows are there twice until the next call; readers take either.
No run may work on the store meanwhile: it could look for a part that has gone.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from data_schemas import Rationales
from qcrd_core.inspect.view import Generation, View
from qcrd_core.parts import open_folder
from qcrd_core.progress import Bar
from qcrd_core.store import Store, part_name

logger = logging.getLogger(__name__)

ROWS_PER_PART = 131_072
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


def compact(view: View, bar: Bar, rows_per_part: int = ROWS_PER_PART) -> Compacted:
    """Join the parts of every generation of a view.

    Args:
        view: A store or a run.
        bar: Advanced by the rows of each part that is looked at.
        rows_per_part: About how many rows a joined part has at most.

    Returns:
        Counts.

    Raises:
        DataError: If a part is damaged; nothing of its group is changed.
        StoreError: If the store refuses.
    """
    num_before = num_after = num_twice = 0
    for generation in view.generations:
        for paths in _groups(view.store, generation, rows_per_part):
            frame = pl.concat([view.store.read_table(path, Rationales) for path in paths])
            num_rows = frame.height
            bar.advance(num_rows)
            if len(paths) > 1:
                frame = frame.unique(_NAMED_BY, keep="first", maintain_order=True)
                num_after += _replace(view.store, generation, paths, frame)
            else:
                num_after += 1
            num_before += len(paths)
            num_twice += num_rows - frame.height
    return Compacted(num_before, num_after, num_twice)


def _groups(store: Store, generation: Generation, rows_per_part: int) -> Iterator[list[str]]:
    """Neighbouring parts that together are about as large as one should be."""
    index = open_folder(store, generation.folder, Rationales).index.sort("low", "path")
    paths: list[str] = []
    total = 0
    for path, num_rows in index.select("path", "num_rows").rows():
        if paths and total + num_rows > rows_per_part:
            yield paths
            paths, total = [], 0
        paths.append(path)
        total += num_rows
    if paths:
        yield paths


def _replace(store: Store, generation: Generation, old: list[str], frame: pl.DataFrame) -> int:
    written = []
    while frame.height:
        # A key may be there for an older text of its question too; a part holds each key once.
        rows = frame.unique(Rationales.primary_key(), keep="first", maintain_order=True)
        path = f"{generation.folder}/{part_name(rows.select(_NAMED_BY))}"
        store.write_table(path, rows, Rationales)
        written.append(path)
        frame = frame.join(rows, on=_NAMED_BY, how="anti", nulls_equal=True)
    for path in set(old) - set(written):
        store.delete(path)
    return len(written)
