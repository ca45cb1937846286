"""Answers of a student: on a split of its run, or on a file of new questions.

Reads: a published student folder. Inference needs the predict prefix only (arXiv 2405.13014).
Writes: table `predictions` and, for a split, table `metrics`, whose part is the proof that the
split was answered.
"""

from pathlib import Path
from typing import Any

import polars as pl
import torch

from data_schemas import Predictions
from qcrd_core.context import RunContext
from qcrd_core.datasets.files import read_rows
from qcrd_core.datasets.questions import to_questions
from qcrd_core.evaluation import score_predictions
from qcrd_core.processes import Emit
from qcrd_core.student.about import read_about
from qcrd_core.student.decode import DecodeOptions, write
from qcrd_core.student.tokenizer import load_tokenizer
from qcrd_core.student.weights import load_model


def main(payload: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Let one round's student answer one split.

    Args:
        payload: `RunContext.payload(round=..., split=...)`.
        emit: Receives `{"advance": n}` after n questions.

    Returns:
        `{"num_questions": int, "num_no_answer": int, "accuracy": float | None}`; the accuracy is of
        the questions with a gold answer, None without any.

    Raises:
        StoreError: If the checkpoint is absent, or the store refuses.
    """
    context = RunContext.from_payload(payload)
    round_, split = int(payload["round"]), str(payload["split"])
    config, paths = context.config, context.paths
    questions = context.read_questions(split)
    written = _answer(
        context.store.fetch_folder(paths.student(round_)),
        [config.student.predict_prefix + question for question in questions["question"]],
        (config.evaluation.max_new_tokens, config.evaluation.batch_size),
        emit,
    )
    texts = dict(zip(questions["question_id"], written, strict=True))
    frame = score_predictions(texts, questions, context.read_spec().answer, round_=round_)
    context.store.write_table(paths.predictions(split, round_), frame, Predictions)
    numbers = measure(frame)
    context.write_metrics(split, round_, numbers)
    return numbers


def answer_file(payload: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Let a published student answer the questions of a file.

    Args:
        payload: `student` (folder), `file` (JSON lines, JSON, CSV or Parquet), `target` (Parquet),
            `batch_size`.
        emit: Receives `{"total": n}` once, and `{"advance": n}` after n questions.

    Returns:
        As `main`.

    Raises:
        ConfigError: If the folder is no student of qcrd, or its weights cannot be loaded.
        DataError: If the file breaks a rule.
    """
    folder, path = Path(payload["student"]), Path(payload["file"])
    about = read_about(folder)
    rows = read_rows(path)
    spec = about.spec_for(path, {name for row in rows for name in row})
    questions = to_questions(rows, spec, "test", where=str(path))
    emit({"total": questions.height})
    prompts = [about.predict_prefix + question for question in questions["question"]]
    limits = (about.max_new_tokens, int(payload["batch_size"]))
    written = _answer(folder, prompts, limits, emit)
    numbered = questions.with_columns(
        pl.Series("question_id", [str(number) for number in range(questions.height)])
    )
    texts = dict(zip(numbered["question_id"], written, strict=True))
    scored = score_predictions(texts, numbered, spec.answer, round_=about.round)
    frame = scored.select("text", "answer", "gold_answer", "is_correct")
    result = pl.concat([questions.select("question_id", "question"), frame], how="horizontal")
    result.write_parquet(payload["target"])
    return measure(scored)


def measure(predictions: pl.DataFrame) -> dict[str, Any]:
    """Counts and accuracy of table `predictions`."""
    known = predictions["is_correct"].drop_nulls()
    return {
        "num_questions": predictions.height,
        "num_no_answer": predictions["answer"].null_count(),
        "accuracy": float(known.sum()) / known.len() if known.len() else None,
    }


def _answer(folder: Path, prompts: list[str], limits: tuple[int, int], emit: Emit) -> list[str]:
    max_new_tokens, batch_size = limits
    model = load_model(folder)
    if torch.cuda.is_available():
        model.to("cuda")
    options = DecodeOptions(max_new_tokens=max_new_tokens, batch_size=batch_size)
    written = write(model, load_tokenizer(folder), prompts, options, emit)
    return [item.text for item in written]
