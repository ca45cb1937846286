"""Marks of curators: written one by one, followed by runs that begin later.

A mark is a part of its own, named after the rationale, so that a later mark of the same rationale
takes its place and two curators never write the same file. The rationales are not touched. A run
copies the marks of its generation when it begins and follows the copy: what is marked meanwhile is
for the next one, which is a run of its own.
"""

from datetime import UTC, datetime
from typing import Literal

import polars as pl

from data_schemas import Curation
from data_schemas.curation import MARKS
from qcrd_core.errors import DataError
from qcrd_core.ids import content_hash
from qcrd_core.store.store import Store

Mark = Literal["keep", "reject", "none"]

_KEYS = ("generation", "question_id", "sample_idx")
_MAX_COMMENT = 2000


def write_mark(
    store: Store,
    dataset: str,
    key: tuple[str, str, int],
    mark: Mark,
    comment: str | None,
) -> None:
    """Mark a rationale, over an earlier mark of it.

    Args:
        store: The store.
        dataset: Name of the data set.
        key: generation, question_id and sample_idx of the rationale.
        mark: keep: positive, whatever the vote says. reject: neither votes nor is learnt from.
            none: a comment only, or a mark taken back.
        comment: Why; cut at 2,000 characters.

    Raises:
        DataError: If the mark is none of these.
        StoreError: If the store refuses.
    """
    if mark not in MARKS:
        msg = f"A mark must be one of {', '.join(MARKS)}; got {mark!r} ({key[1]})."
        raise DataError(msg)
    said = (comment or "").strip()[:_MAX_COMMENT] or None
    row = (*key, mark, said, datetime.now(UTC))
    frame = pl.DataFrame([row], schema=Curation.create_empty().schema, orient="row")
    name = f"part-{content_hash(*(str(value) for value in key))}.parquet"
    store.write_table(f"datasets/{dataset}/curation/{name}", frame, Curation)


def read_marks(store: Store, dataset: str, generation: str) -> pl.DataFrame:
    """Read the marks of a generation that change something.

    Args:
        store: The store.
        dataset: Name of the data set.
        generation: Fingerprint of the generation.

    Returns:
        Table `curation`: keep and reject only.

    Raises:
        DataError: If a part is damaged.
    """
    marks = store.read_table(f"datasets/{dataset}/curation", Curation)
    return marks.filter(pl.col("generation") == generation, pl.col("mark") != "none")


def marks_hash(marks: pl.DataFrame) -> str:
    """Hash what marks do, not when or why they were made.

    Args:
        marks: Table `curation`.

    Returns:
        A hash; an empty text for no marks.
    """
    if marks.is_empty():
        return ""
    rows = marks.sort(_KEYS).select(*_KEYS, pl.col("mark").cast(pl.String)).rows()
    return content_hash(*(str(value) for row in rows for value in row))
