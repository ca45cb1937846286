"""Curators' marks on rationales; runs that begin later follow them.

Each mark is one part, named after its rationale: a later mark of the same rationale replaces it,
and marks of different rationales never share a file. The rationales are not changed. A run copies
the marks of its generation when it begins and follows the copy. Later marks lead to a new run.
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
    """Mark a rationale; replaces an earlier mark of it.

    Args:
        store: The store.
        dataset: Name of the data set.
        key: generation, question_id and sample_idx of the rationale.
        mark: keep: positive, whatever the vote says. reject: neither votes nor is trained on.
            none: only a comment, or a withdrawn mark.
        comment: The reason; cut at 2,000 characters.

    Raises:
        DataError: If the mark is unknown.
        StoreError: If the store cannot write it.
    """
    if mark not in MARKS:
        msg = f"A mark must be one of {', '.join(MARKS)}; got {mark!r} ({key[1]})."
        raise DataError(msg)
    kept = (comment or "").strip()[:_MAX_COMMENT] or None
    row = (*key, mark, kept, datetime.now(UTC))
    frame = pl.DataFrame([row], schema=Curation.create_empty().schema, orient="row")
    name = f"part-{content_hash(*(str(value) for value in key))}.parquet"
    store.write_table(f"datasets/{dataset}/curation/{name}", frame, Curation)


def read_marks(store: Store, dataset: str, generation: str) -> pl.DataFrame:
    """Read the marks of a generation that have an effect.

    Args:
        store: The store.
        dataset: Name of the data set.
        generation: Fingerprint of the generation.

    Returns:
        Table `curation`, only keep and reject.

    Raises:
        DataError: If a part is damaged.
    """
    marks = store.read_table(f"datasets/{dataset}/curation", Curation)
    return marks.filter(pl.col("generation") == generation, pl.col("mark") != "none")


def marks_hash(marks: pl.DataFrame) -> str:
    """Hash the effect of marks, without their times and comments.

    Args:
        marks: Table `curation`.

    Returns:
        A hash; an empty text if there are no marks.
    """
    if marks.is_empty():
        return ""
    rows = marks.sort(_KEYS).select(*_KEYS, pl.col("mark").cast(pl.String)).rows()
    return content_hash(*(str(value) for row in rows for value in row))
