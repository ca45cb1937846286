"""Answers of a published student for a file of questions."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from qcrd_core.config.base import MAX_BATCH
from qcrd_core.config.files import expand_user
from qcrd_core.errors import ConfigError
from qcrd_core.progress import Bar
from qcrd_core.runtime.processes import TEMPORARY, run_job
from qcrd_core.store.filesystem import split_options
from qcrd_core.store.store import DONE, Store
from qcrd_core.store.target import new_target
from qcrd_core.student.jobs import AnswerFile, answer_file

_WRITERS: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    ".jsonl": pl.DataFrame.write_ndjson,
    ".csv": pl.DataFrame.write_csv,
    ".parquet": pl.DataFrame.write_parquet,
}


def predict_file(
    student: str, file: Path, target: Path, *, batch_size: int, bar: Bar
) -> dict[str, Any]:
    """Let a student answer a file.

    Args:
        student: Its folder, or the URL of a published student.
        file: Questions in the data set's columns.
        target: New file: question_id, question, text, answer, confidence, gold_answer, is_correct.
        batch_size: Questions per batch.
        bar: Shows the progress.

    Returns:
        `num_questions`, `num_no_answer`, `num_without_confidence`, `accuracy` (None without gold
        answers), and `ece` with confidences and gold answers.

    Raises:
        ConfigError: If the folder is not a student, the target exists, its ending is unknown, or
            `batch_size` is out of range.
        DataError: If the file breaks a rule, or the target cannot be written.
        StoreError: If the URL is not that of a published student.
    """
    write = _WRITERS.get(target.suffix)
    if write is None:
        msg = f"The output file must end in {', '.join(_WRITERS)}; got {target}. Rename it."
        raise ConfigError(msg)
    if not 1 <= batch_size <= MAX_BATCH:
        msg = f"--batch-size must be between 1 and {MAX_BATCH:,}; got {batch_size:,}."
        raise ConfigError(msg)
    with (
        new_target(target, "--output") as output,
        tempfile.TemporaryDirectory(prefix=TEMPORARY) as name,
    ):
        answers = Path(name, "answers.parquet")
        job = AnswerFile(fetch_student(student, Path(name)), file, answers, batch_size)

        def show(event: dict[str, Any]) -> None:
            if "total" in event:
                bar.expect(event["total"])
            else:
                bar.advance(event["advance"])

        log = Path(name, "predict.log")
        numbers = run_job(answer_file, job, log=log, on_event=show).value
        write(pl.read_parquet(answers), output)
    return numbers


def fetch_student(student: str, scratch: Path) -> Path:
    """Copy a published student to this machine, if it is not here already.

    Args:
        student: Its folder, or its URL in an object store, with the store's options after a `?`.
        scratch: Folder for the copy.

    Returns:
        A local folder.

    Raises:
        StoreError: If the URL is not that of a published student, or a file differs from the
            published one.
    """
    if "://" not in student:
        folder = expand_user(student).absolute()
        # Without DONE it is a copy that somebody made, whose hashes nobody knows.
        if (folder / DONE).exists():
            Store(str(folder.parent), scratch).fetch_folder(folder.name, check=True)
        return folder
    address, options = split_options(student)
    root, _, rel = address.rstrip("/").rpartition("/")
    return Store(root + options, scratch).fetch_folder(rel)
