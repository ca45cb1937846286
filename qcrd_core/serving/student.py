"""The student that a server asks, and what it answers to one question.

    student = ServedStudent.load(folder, "invoices/cb209c56", batch_size=64)
    replies = student.answer(["How many pens are in 3 boxes of 4?"])

It answers as `qcrd predict` does, by the same code: prefix, lengths, kind of inference and form of
answers are those of its `qcrd.json`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from data_schemas import Questions
from qcrd_core.data.files import parse_json
from qcrd_core.data.questions import to_questions
from qcrd_core.errors import DataError
from qcrd_core.serving.requests import Content
from qcrd_core.student.metadata import StudentMetadata, read_metadata

_WHERE = "the content of the message"


@dataclass(frozen=True)
class StudentReply:
    """The answer to one question."""

    question: str
    """The question as the student read it, without its prefix."""
    choices: list[str] | None
    turns: str | None
    """The turns before the answer as JSON, if it is a conversation."""
    text: str
    """What the student wrote."""
    answer: str | None
    """Canonical; None if no answer can be read in the text."""
    rationale: str | None
    """Reasoning, if its kind of inference writes one."""
    confidence: float | None
    """Probability that the answer is right; None if it is not calibrated."""
    raw_confidence: float | None
    num_prompt_tokens: int
    num_tokens: int
    is_finished: bool


class ServedStudent:
    """A loaded student. One thread at a time may ask it."""

    def __init__(self, answerer: Any, folder: Path, label: str) -> None:
        """Wrap a student.

        Args:
            answerer: `qcrd_core.student.inference.Answerer`.
            folder: Its folder on this machine.
            label: Which student it is, for example `invoices/cb209c56`.
        """
        self._answerer, self.folder, self.label = answerer, folder, label
        self.metadata: StudentMetadata = answerer.metadata

    @classmethod
    def load(cls, folder: Path, label: str, *, batch_size: int) -> "ServedStudent":
        """Load a student.

        Args:
            folder: Its folder on this machine.
            label: Which student it is.
            batch_size: Texts per batch.

        Returns:
            The student.

        Raises:
            ConfigError: If the folder is not a student of qcrd, or cannot be loaded.
        """
        from qcrd_core.student.predict import load_answerer  # loads torch

        metadata = read_metadata(folder)
        # Sampled rationales must not depend on who asks at the same time.
        answerer = load_answerer(folder, metadata, batch_size=batch_size, are_alone=True)
        return cls(answerer, folder, label)

    def answer(self, contents: Sequence[Content]) -> list[StudentReply | DataError]:
        """Answer questions as one batch.

        Args:
            contents: Questions as texts; or as JSON objects with the data set's columns, if its
                questions are made of several columns or have choices; or the turns of a
                conversation, if the data set holds such.

        Returns:
            For each an answer, or why it cannot be asked.
        """
        read = [self._read(content) for content in contents]
        asked = [item for item in read if not isinstance(item, DataError)]
        questions = pl.concat([Questions.create_empty().drop("split"), *(one for one, _ in asked)])
        found, _ = self._answerer.answer(questions, lambda _: None) if asked else ([], 0)
        replies = iter(
            self._reply(one, num_tokens, item)
            for (one, num_tokens), item in zip(asked, found, strict=True)
        )
        return [item if isinstance(item, DataError) else next(replies) for item in read]

    def _read(self, content: Content) -> tuple[pl.DataFrame, int] | DataError:
        """A question, one row, and its tokens with the prefix."""
        try:
            row = self._row(content)
            spec = self.metadata.spec_for(Path("request"), set(row))
            question = to_questions([row], spec, "test", where=_WHERE).drop("split")
            return question, self._answerer.check_lengths(question)
        except DataError as error:
            return error

    def _row(self, content: Content) -> dict[str, Any]:
        if self.metadata.source == "chat":
            alone = [{"role": "user", "content": content}]
            return {"messages": alone if isinstance(content, str) else content}
        assert isinstance(content, str)  # the request has no turns for other students
        return _columns(content) if self._has_columns else {self._column: content}

    @property
    def _has_columns(self) -> bool:
        metadata = self.metadata
        return metadata.question_template is not None or metadata.columns.choices is not None

    @property
    def _column(self) -> str:
        return self.metadata.columns.question

    def _reply(self, question: pl.DataFrame, num_prompt_tokens: int, item: Any) -> StudentReply:
        calibration, raw = self.metadata.calibration, item.raw_confidence
        confidence = None
        if calibration is not None:
            confidence = calibration.confidence(raw, has_answer=item.answer is not None)
        return StudentReply(
            question=question["question"][0],
            choices=question["choices"].to_list()[0],
            turns=question["messages"][0],
            text=item.text,
            answer=item.answer,
            rationale=item.rationale,
            confidence=confidence,
            raw_confidence=raw,
            num_prompt_tokens=num_prompt_tokens,
            num_tokens=item.num_tokens,
            is_finished=item.is_finished,
        )


def _columns(content: str) -> dict[str, Any]:
    try:
        row = parse_json(content)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        example = json.dumps({"question": "...", "choices": ["...", "..."]})
        msg = (
            "The questions of this student are made of several columns, so the message must be a "
            f"JSON object such as {example}, as a line of a file for `qcrd predict`."
        )
        raise DataError(msg)
    return row
