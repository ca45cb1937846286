"""Samples whose request failed, and how to ask for them again.

A failed row counts as stored, because most refusals last: a prompt that is too long stays too long.
When the cause is gone (a filter, a limit of the account, a setting of the server), `forget_failed`
takes the rows out of the generation, and the next plan finds their samples missing.
"""

import polars as pl

from data_schemas import Rationales
from qcrd_core.store.parts import collect, open_folder
from qcrd_core.store.store import Store, part_name
from qcrd_core.teacher.plan import prompt_hashes

_ASKED = ("question_id", "prompt_hash")
_NAMED_BY = ("question_id", "sample_idx", "prompt_hash")


def failed_reasons(
    store: Store, folder: str, *, questions: pl.DataFrame, num_samples: int
) -> pl.DataFrame:
    """Count the failed samples of a generation by their error.

    Args:
        store: The store.
        folder: The generation's folder; an absent one has none.
        questions: Table `questions`; rows of other questions and texts are left out.
        num_samples: K; samples with a number of K or more are left out.

    Returns:
        error, num_rows; the most frequent first.

    Raises:
        DataError: If a part is damaged.
    """
    lazy = open_folder(store, folder, Rationales).scan()
    failed = lazy.filter((pl.col("status") == "failed") & (pl.col("sample_idx") < num_samples))
    rows = collect(failed.select(*_NAMED_BY, "error"), f"{store}/{folder}")
    wanted = rows.join(_asked(questions), on=_ASKED, how="semi").unique(_NAMED_BY)
    counts = wanted.group_by("error").agg(num_rows=pl.len())
    return counts.sort("num_rows", "error", descending=[True, False])


def forget_failed(store: Store, folder: str, *, questions: pl.DataFrame, num_samples: int) -> int:
    """Take failed samples out of a generation, so that they are asked again.

    A part with such rows is replaced by one without them, which is written first. After a kill in
    between, some rows exist twice, as after one of `compact`.

    Args:
        store: The store.
        folder: The generation's folder.
        questions: Table `questions`; rows of other questions and texts stay.
        num_samples: K; samples with a number of K or more stay.

    Returns:
        Rows that were taken out.

    Raises:
        DataError: If a part is damaged.
        StoreError: If the store cannot be written.
    """
    num_rows, asked = 0, _asked(questions)
    is_failed = (pl.col("status") == "failed") & (pl.col("sample_idx") < num_samples)
    for path in open_folder(store, folder, Rationales).index["path"]:
        rows = store.read_table(path, Rationales)
        failed = rows.filter(is_failed).join(asked, on=_ASKED, how="semi")
        if failed.is_empty():
            continue
        kept = rows.join(failed, on=_NAMED_BY, how="anti")
        if kept.height:
            store.write_table(f"{folder}/{part_name(kept.select(_NAMED_BY))}", kept, Rationales)
        store.delete(path)
        num_rows += failed.height
    return num_rows


def _asked(questions: pl.DataFrame) -> pl.DataFrame:
    return questions.select("question_id").with_columns(prompt_hashes(questions))
