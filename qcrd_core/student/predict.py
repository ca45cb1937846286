"""Answers of a student: on a split of its run, or on a file of new questions.

Reads: a published student folder. By default, inference uses only the predict prefix (arXiv
2405.13014); `evaluation.infer` sets other kinds.
Writes: table `predictions` and, for a split, table `metrics`; if the metrics part exists, the split
has been answered.
"""

from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers.utils.logging import disable_progress_bar

from data_schemas import Predictions
from qcrd_core.data.answers import AnswerSpec
from qcrd_core.data.files import read_rows
from qcrd_core.data.questions import to_questions
from qcrd_core.data.verifier import log_failures
from qcrd_core.evaluation import score_predictions, scores_of_parts
from qcrd_core.runtime.processes import Emit
from qcrd_core.student.confidence import calibration_error, validated_calibration, with_confidence
from qcrd_core.student.inference import Answerer
from qcrd_core.student.jobs import AnswerFile, AnswerSplit
from qcrd_core.student.metadata import StudentMetadata, read_metadata
from qcrd_core.student.tokenizer import load_tokenizer
from qcrd_core.student.weights import load_model


def answer_split(job: AnswerSplit, emit: Emit) -> dict[str, Any]:
    """Let one round's student answer one split.

    Args:
        job: The run, its round and the split.
        emit: Receives `{"advance": n}` after n texts.

    Returns:
        `{"num_questions": int, "num_no_answer": int, "accuracy": float | None}`; the accuracy
        covers the questions with a gold answer, and is None if there are none. With confidences
        and gold answers, `ece` is their expected calibration error. If inference uses
        rationales, `num_without_rationale_answer` counts the questions answered without them. For
        answers of kind labels or json, the numbers of `label_f1` or `field_accuracy` too; of kind
        verifier, `num_verifier_failed`.

    Raises:
        StoreError: If the checkpoint is absent, or the store cannot write the tables.
    """
    context, round_, split = job.context, job.round, job.split
    paths, questions = context.paths, context.read_questions(split)
    metadata = StudentMetadata.of(context, round_, job.infer)
    if split == "test" and job.infer is None:
        calibration = validated_calibration(context, round_)
        metadata = metadata.model_copy(update={"calibration": calibration})
    folder = context.store.fetch_folder(paths.student(round_))
    batch_size = context.config.evaluation.batch_size
    frame, counts = _answer(folder, metadata, questions, batch_size, emit)
    context.store.write_table(paths.predictions(job.stage, round_), frame, Predictions)
    numbers = {**measure(frame, metadata.answer), **counts}
    context.write_metrics(job.stage, round_, numbers)
    return numbers


def answer_file(job: AnswerFile, emit: Emit) -> dict[str, Any]:
    """Let a published student answer the questions of a file.

    Args:
        job: The student, the file, and the target of the answers.
        emit: Receives `{"total": n}` once, and `{"advance": n}` after n texts.

    Returns:
        As `answer_split`, and `num_without_confidence`.

    Raises:
        ConfigError: If the folder is not a student of qcrd, or its weights cannot be loaded.
        DataError: If the file breaks a rule, or a question is too long for the student.
    """
    metadata = read_metadata(job.student)
    rows = read_rows(job.file)
    spec = metadata.spec_for(job.file, {name for row in rows for name in row})
    questions = to_questions(rows, spec, "test", where=str(job.file))
    emit({"total": questions.height * metadata.num_votes})
    numbered = questions.with_columns(
        pl.Series("question_id", [str(number) for number in range(questions.height)])
    )
    scored, counts = _answer(job.student, metadata, numbered, job.batch_size, emit)
    frame = scored.select("text", "answer", "confidence", "gold_answer", "is_correct")
    result = pl.concat([questions.select("question_id", "question"), frame], how="horizontal")
    result.write_parquet(job.target)
    counts["num_without_confidence"] = scored["confidence"].null_count()
    return {**measure(scored, metadata.answer), **counts}


def measure(predictions: pl.DataFrame, answer: AnswerSpec) -> dict[str, Any]:
    """Counts and accuracy of table `predictions`; for labels also F1, for JSON that of fields.

    With confidences also `ece`, their expected calibration error.
    """
    known = predictions["is_correct"].drop_nulls()
    further = scores_of_parts(predictions, answer.kind, answer.labels)
    error = calibration_error(predictions)
    if error is not None:
        further["ece"] = error[0]
    return {
        **further,
        "num_questions": predictions.height,
        "num_no_answer": predictions["answer"].null_count(),
        "accuracy": float(known.sum()) / known.len() if known.len() else None,
    }


def load_answerer(
    folder: Path, metadata: StudentMetadata, *, batch_size: int, are_alone: bool = False
) -> Answerer:
    """Load a student, onto the GPU if there is one.

    Args:
        folder: Its folder.
        metadata: How it is asked.
        batch_size: Texts per batch.
        are_alone: As for `Answerer`.

    Returns:
        The student.

    Raises:
        ConfigError: If its weights or its tokenizer cannot be loaded, or its verifier cannot be
            imported or is not the one of its run.
    """
    if metadata.answer.verifier is not None:
        metadata.answer.verifier.check()
    disable_progress_bar()  # a bar over milliseconds, in the middle of a log
    model = load_model(folder)
    if torch.cuda.is_available():
        model.to("cuda")
    tokenizer = load_tokenizer(folder)
    return Answerer(model, tokenizer, metadata, batch_size=batch_size, are_alone=are_alone)


def _answer(
    folder: Path, metadata: StudentMetadata, questions: pl.DataFrame, batch_size: int, emit: Emit
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Table `predictions`, and further counts if inference uses rationales."""
    answerer = load_answerer(folder, metadata, batch_size=batch_size)
    answerer.check_lengths(questions)
    answers, num_silent = answerer.answer(questions, emit)
    ids = questions["question_id"].to_list()
    frame = score_predictions(
        {key: item.text for key, item in zip(ids, answers, strict=True)},
        {key: item.answer for key, item in zip(ids, answers, strict=True)},
        questions,
        round_=metadata.round,
        raw_confidences={key: item.raw_confidence for key, item in zip(ids, answers, strict=True)},
    )
    frame = with_confidence(frame, metadata.calibration)
    counts = {} if metadata.infer == "predict" else {"num_without_rationale_answer": num_silent}
    if metadata.answer.verifier is not None:
        counts["num_verifier_failed"] = log_failures(item.error for item in answers)
    return frame, counts
