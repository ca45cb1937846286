"""Imported generations in the store: written by an import, read instead of a teacher's samples.

`generation.json` is written last, so a generation without it is incomplete.
"""

import logging
from collections.abc import Mapping
from typing import Any

import polars as pl

from data_schemas import Questions, Rationales
from qcrd_core.errors import DataError
from qcrd_core.ids import fingerprint
from qcrd_core.store.store import Store, part_name

logger = logging.getLogger(__name__)

_GENERATION_FILE = "generation.json"
_QUESTIONS_PER_PART = 10_000


def import_folder(name: str, identity: Mapping[str, Any]) -> str:
    """Folder of an imported generation of data set `name`, relative to the store's root."""
    return f"datasets/{name}/rationales/generation={fingerprint(identity)}"


def write_import(
    store: Store,
    name: str,
    identity: Mapping[str, Any],
    *,
    questions: pl.DataFrame,
    rationales: pl.DataFrame,
) -> None:
    """Write the tables of an import, `generation.json` last.

    Args:
        store: Where to write.
        name: Name of the data set.
        identity: The values behind the generation's fingerprint.
        questions: Table `questions`.
        rationales: Table `rationales`.

    Raises:
        StoreError: If the store cannot write them.
    """
    folder = import_folder(name, identity)
    part = part_name(questions.select("question_id"))
    store.write_table(f"datasets/{name}/questions/{part}", questions, Questions)
    ids = questions["question_id"]
    for start in range(0, len(ids), _QUESTIONS_PER_PART):
        chosen = ids.slice(start, _QUESTIONS_PER_PART).implode()
        rows = rationales.filter(pl.col("question_id").is_in(chosen))
        if rows.height:
            part = part_name(rows.select("question_id", "sample_idx"))
            store.write_table(f"{folder}/{part}", rows, Rationales)
    store.write_json(f"{folder}/{_GENERATION_FILE}", dict(identity))


def read_imported(
    store: Store, name: str, generation: str, *, questions: pl.DataFrame, num_samples: int
) -> pl.DataFrame:
    """Read an imported generation instead of a teacher's samples.

    Args:
        store: The store of the import.
        name: Name of the data set.
        generation: `teacher.model.generation`.
        questions: Table `questions` of the run; rationales of other questions are ignored, and
            their number is logged.
        num_samples: K; samples of a question beyond the first K are ignored and counted too.

    Returns:
        Table `rationales`, sorted by question_id and sample_idx.

    Raises:
        DataError: If there is no such imported generation, or none of its rationales belongs to a
            question of the run.
    """
    folder = f"datasets/{name}/rationales/generation={generation}"
    path = f"{folder}/{_GENERATION_FILE}"
    if not store.exists(path) or store.read_json(path, dict[str, Any]).get("source") != "imported":
        msg = (
            f"teacher.model.generation must name an imported generation of {name}; got "
            f"{generation!r} ({store}). Import the file with `qcrd import`, which prints the name."
        )
        raise DataError(msg)
    stored = store.read_table(folder, Rationales)
    kept = stored.join(questions.select("question_id"), on="question_id", how="semi")
    if kept.is_empty():
        msg = (
            "Imported rationales must belong to questions of the run; got "
            f"{stored.height} of other questions in generation {generation} ({name}). Import them "
            "with the data set's own question texts or ids."
        )
        raise DataError(msg)
    wanted = kept.filter(pl.col("sample_idx") < num_samples)
    logger.info(
        "%d imported rationales | ignored: %d of other questions, %d beyond num_samples",
        wanted.height,
        stored.height - kept.height,
        kept.height - wanted.height,
    )
    return wanted
