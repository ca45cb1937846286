"""Imports rationales that others sampled, as a separate generation in the store.

    summary = import_file(store, path=Path("train.jsonl"), spec=spec, split="train",
                          columns=ImportColumns(question="question", gold_answer="label",
                                                rationales="rationales"))

A run trains from them with `teacher.model: {type: imported, generation: <summary.generation>}`: it
samples nothing and reads them with `imported.read_imported`. The run's questions still come from
its data set; they match the imported ones if both have the same question text.

Reads: a JSON, JSON-lines, CSV or Parquet file. Writes: tables `questions` and `rationales`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import ValidationError

from data_schemas import Questions, Rationales
from qcrd_core.config.reading import explain
from qcrd_core.data.files import Row, has_column
from qcrd_core.data.formats import Format, default_columns, model_name, read_format
from qcrd_core.data.imported import import_folder, write_import
from qcrd_core.data.imported_rows import SampleColumns, samples_of
from qcrd_core.data.questions import to_questions
from qcrd_core.data.shards import parts_of
from qcrd_core.data.spec import Columns, DatasetSpec
from qcrd_core.data.verifier import log_failures
from qcrd_core.errors import ConfigError, DataError
from qcrd_core.ids import IDENTITY_VERSION, content_hash, file_hash, fingerprint
from qcrd_core.store.store import Store

logger = logging.getLogger(__name__)

_RUN_ID = "import"


class ImportColumns(SampleColumns):
    """Names of the columns of an imported file."""

    question: str | None = None
    """The question as models read it (choices are added below it). Null: the format's column. If
    the format has none, questions are read by the data set's own columns, and the other columns
    here must be null too."""
    question_id: str | None = None
    """Ids; null: a hash of question and choices."""
    gold_answer: str | None = None
    """The correct answer, if the file has one."""
    gold_target: str | None = None
    """Text that the student learns as the label instead of the answer."""
    choices: str | None = None
    """A list of choices, for answers of kind choice."""


@dataclass(frozen=True)
class ImportSummary:
    """Result of an import."""

    generation: str
    """Fingerprint, the value for `teacher.model.generation`."""
    folder: str
    """The generation's folder in the store."""
    num_rows: int
    """Rows of the file."""
    num_questions: int
    """Distinct questions."""
    num_samples: int
    """Stored rationales, including those without an answer and empty ones."""
    num_unparsable: int
    """Rationales without a readable answer."""
    num_empty: int
    """Texts that are null, blank or too long to be read, stored as failed."""
    min_samples: int
    """Fewest rationales per question."""
    max_samples: int
    """Most rationales per question."""


def import_file(
    store: Store,
    *,
    path: Path,
    spec: DatasetSpec,
    split: Literal["train", "validation", "test"],
    columns: ImportColumns,
    model: str | None = None,
    form: Format = "plain",
    asked: Path | None = None,
) -> ImportSummary:
    """Read a file and write its questions and rationales to the store.

    Importing the same file again replaces the same generation.

    Args:
        store: Where to write.
        path: The file; or a pattern such as `part_*.jsonl`, or a folder, for several that are one.
        spec: The data set: answer form, stop texts and marker; its name is the folder.
        split: Split of the file's questions.
        columns: Names of the file's columns; they override those of the format.
        model: The model that wrote the rationales, for the tables. None: distilabel's column, or
            `unknown`.
        form: Layout of the file, see `qcrd_core.data.formats`.
        asked: For dss, the data set's own file in the same order.

    Returns:
        Counts and the generation's fingerprint.

    Raises:
        ConfigError: If the columns do not fit the data set.
        DataError: If the file breaks a rule, or holds no rationale.
        StoreError: If the store cannot write the tables.
    """
    rows = read_format(path, form, asked)
    brought = default_columns(form, rows, joined=asked is not None)
    columns = _of_format(columns, brought, form, rows, str(path))
    spec = _with_columns(spec, columns)
    model = model or (model_name(rows) if form == "distilabel" else None) or "unknown"
    identity = {
        "schema_version": IDENTITY_VERSION,
        "source": "imported",
        "file_sha256": _hash_of_parts(parts_of(path)),
        **({} if asked is None else {"questions_sha256": file_hash(asked)}),
        "model": model,
        "columns": columns.model_dump(mode="json"),
        "read_as": spec.columns.model_dump(mode="json"),
        "question_template": spec.question_template,
        "answer": spec.answer.identity(),
    }
    questions, rationales = import_rationales(
        rows,
        spec,
        split=split,
        columns=columns,
        where=str(path),
        model=model,
        generation=fingerprint(identity),
    )
    summary = _summary(rows, questions, rationales, folder=import_folder(spec.name, identity))
    write_import(store, spec.name, identity, questions=questions, rationales=rationales)
    logger.info(
        "Imported %d rationales of %d questions | %d without a readable answer | %d empty | %s",
        summary.num_samples,
        summary.num_questions,
        summary.num_unparsable,
        summary.num_empty,
        summary.folder,
    )
    return summary


def _hash_of_parts(parts: Sequence[Path]) -> str:
    hashes = [file_hash(part) for part in parts]
    return hashes[0] if len(hashes) == 1 else content_hash(*hashes, length=64)


def import_rationales(
    rows: Sequence[Row],
    spec: DatasetSpec,
    *,
    split: str,
    columns: ImportColumns,
    where: str,
    model: str,
    generation: str,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Make tables from imported rows; writes nothing.

    Args:
        rows: Rows of the file, at least one.
        spec: The data set, with the file's columns.
        split: Split of the questions.
        columns: Names of the file's columns, with that of the rationales.
        where: Name of the file, for errors.
        model: The model that wrote the rationales.
        generation: Fingerprint of the import.

    Returns:
        Tables `questions` (each once) and `rationales`; sample_idx numbers a question's rationales
        in the order of the file.

    Raises:
        DataError: If a row breaks a rule, two rows of one question disagree on its gold answer, or
            there is no rationale.
    """
    frame = to_questions(rows, spec, split, where=where)
    _check_gold_agrees(frame, where)
    _check_columns(rows, frame, columns, where)
    created_at = datetime.now(UTC)
    counts: dict[str, int] = {}
    made = []
    for number, (row, question) in enumerate(zip(rows, frame.iter_rows(named=True), strict=True)):
        question_id = question["question_id"]
        for sample in samples_of(row, question, columns, spec.answer, f"{where}, row {number + 1}"):
            index = counts.get(question_id, 0)
            counts[question_id] = index + 1
            key = {"question_id": question_id, "sample_idx": index, "created_at": created_at}
            made.append({**key, **sample})
    if not made:
        msg = (
            f"{where} must hold at least one rationale; got an empty column {columns.rationales} "
            "in every row. Name another column with --rationales."
        )
        raise DataError(msg)
    constant = {"source": "imported", "model": model, "generation": generation, "run_id": _RUN_ID}
    log_failures(row.get("error") for row in made if row["status"] != "failed")
    schema = Rationales.create_empty().schema
    rationales = pl.DataFrame([{**constant, **row} for row in made], schema=schema)
    questions = frame.unique("question_id", keep="first", maintain_order=True)
    return Questions.validate(questions, cast=True), Rationales.validate(rationales, cast=True)


def _check_columns(
    rows: Sequence[Row], questions: pl.DataFrame, columns: ImportColumns, where: str
) -> None:
    present = {name for row in rows for name in row}
    for option in ("rationales", "answer", "correct"):
        name = getattr(columns, option)
        if name is not None and not has_column(present, name):
            msg = (
                f"{where} must have the column {name}; got {', '.join(sorted(present))}. Name the "
                f"right one with --{option}."
            )
            raise DataError(msg)
    if columns.correct is not None and not questions["gold_answer"].count():
        msg = (
            "Questions must have a gold answer if --correct is given, because it is the answer of "
            f"a right rationale; got none ({where}). Name its column with --gold-answer."
        )
        raise ConfigError(msg)


def _of_format(
    columns: ImportColumns,
    brought: Mapping[str, str],
    form: Format,
    rows: Sequence[Row],
    where: str,
) -> ImportColumns:
    """The columns, completed by those of the format."""
    named = columns.model_dump(exclude_none=True)
    found = ImportColumns(**{**brought, **named})
    if found.rationales is None:
        present = ", ".join(sorted({name for row in rows for name in row}))
        msg = (
            f"columns.rationales must name the column of the rationales; got none, and {where} has "
            f"{present} (format {form}). Name one with --rationales, or another --format."
        )
        raise ConfigError(msg)
    return found


def _with_columns(spec: DatasetSpec, columns: ImportColumns) -> DatasetSpec:
    own = columns.model_dump(exclude={"rationales", "answer", "correct"}, exclude_none=True)
    if not own:
        return spec
    if columns.question is None:
        msg = (
            "columns.question must be named if other columns of the file are; got only "
            f"{', '.join(own)}. Name it, or name only the rationales."
        )
        raise ConfigError(msg)
    changed = {"columns": Columns(**own), "question_template": None}
    try:
        return DatasetSpec.model_validate({**spec.model_dump(), **changed})
    except ValidationError as error:
        raise ConfigError(explain(error, f"import into {spec.name}")) from error


def _check_gold_agrees(frame: pl.DataFrame, where: str) -> None:
    counts = frame.group_by("question_id", maintain_order=True).agg(
        pl.col("gold_answer").n_unique()
    )
    differing = counts.filter(pl.col("gold_answer") > 1)["question_id"]
    if len(differing):
        msg = (
            f"Rows of one question must agree on its gold answer; got {len(differing)} questions "
            f"with several (first: {differing[0]}, {where}). Correct the rows."
        )
        raise DataError(msg)


def _summary(
    rows: Sequence[Row], questions: pl.DataFrame, rationales: pl.DataFrame, *, folder: str
) -> ImportSummary:
    per_question = rationales.group_by("question_id").len()
    counts = questions.select("question_id").join(per_question, on="question_id", how="left")
    samples = counts["len"].fill_null(0).to_list()
    return ImportSummary(
        generation=folder.rpartition("=")[2],
        folder=folder,
        num_rows=len(rows),
        num_questions=questions.height,
        num_samples=rationales.height,
        num_unparsable=rationales.filter(
            pl.col("status").is_in(["no_answer", "thought_only"])
        ).height,
        num_empty=rationales.filter(pl.col("status") == "failed").height,
        min_samples=min(samples),
        max_samples=max(samples),
    )
