"""Imported generations in the store: written by an import, read in a teacher's place.

`generation.json` is written last, so a generation without it is half-written.
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
        identity: What the generation's fingerprint stands for.
        questions: Table `questions`.
        rationales: Table `rationales`.

    Raises:
        StoreError: If the store refuses.
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
    """Read an imported generation in a teacher's place.

    Args:
        store: Where it was imported to.
        name: Name of the data set.
        generation: `teacher.model.generation`.
        questions: Table `questions` of the run; rationales of other questions are left out, and
            their number is logged.
        num_samples: K; a question's samples from K on are left out likewise.

    Returns:
        Table `rationales`, sorted by question_id and sample_idx.

    Raises:
        DataError: If there is no such imported generation, or none of its rationales belongs to a
            question of the run.
    """
    folder = f"datasets/{name}/rationales/generation={generation}"
    path = f"{folder}/{_GENERATION_FILE}"
    if not store.exists(path) or store.read_json(path).get("source") != "imported":
        msg = (
            f"teacher.model.generation must name an imported generation of {name}; got "
            f"{generation!r} ({store}). Bring the file in with `qcrd import`, which prints it."
        )
        raise DataError(msg)
    stored = store.read_table(folder, Rationales)
    kept = stored.join(questions.select("question_id"), on="question_id", how="semi")
    if kept.is_empty():
        msg = (
            f"Imported rationales must belong to questions of the run; none of {stored.height} in "
            f"generation {generation} does ({name}). Import with the data set's own question text "
            "or ids."
        )
        raise DataError(msg)
    wanted = kept.filter(pl.col("sample_idx") < num_samples)
    logger.info(
        "%d imported rationales | left out: %d of other questions, %d beyond num_samples",
        wanted.height,
        stored.height - kept.height,
        kept.height - wanted.height,
    )
    return wanted
