"""Right answers that clients send for questions that a server has kept.

sent = read_feedback(b'{"question_id": "2d16daabb06eec66", "answer": "10"}')
kept = await take_feedback(sent, metadata, capture)
"""

import json
from dataclasses import dataclass
from typing import Any

from qcrd_core.data.answers import AnswerSpec, canonical
from qcrd_core.data.readers.names import NO_LABELS
from qcrd_core.serving.capture import MAX_ANSWERS, Capture, TooManyAnswersError
from qcrd_core.serving.requests import RequestError, read_object
from qcrd_core.student.metadata import StudentMetadata

MAX_CHARACTERS = 20_000
"""Longest right answer."""


@dataclass(frozen=True)
class Sent:
    """What a client sent."""

    question_id: str
    answer: Any


def read_feedback(body: bytes) -> Sent:
    """Read the body of a request.

    Args:
        body: JSON.

    Returns:
        Its question and answer.

    Raises:
        RequestError: If the body breaks a rule.
    """
    request = read_object(body)
    if set(request) != {"question_id", "answer"}:
        msg = "Feedback must be a JSON object with question_id and answer, and nothing else."
        raise RequestError(400, msg)
    if not isinstance(request["question_id"], str):
        msg = "question_id must be the text that came with an answer of this server."
        raise RequestError(400, msg, param="question_id")
    return Sent(request["question_id"], request["answer"])


async def take_feedback(sent: Sent, metadata: StudentMetadata, capture: Capture) -> dict[str, Any]:
    """Keep a right answer.

    Args:
        sent: What a client sent.
        metadata: Of the present student: data set and form of answers.
        capture: Keeps it.

    Returns:
        question_id, answer (canonical) and is_new, for the client.

    Raises:
        RequestError: If the question is not kept, or the answer cannot be read.
        StoreError: If the disk is full.
    """
    try:
        choices = capture.choices(metadata.dataset, sent.question_id)
    except KeyError:
        msg = "This server has kept no question with this question_id."
        raise RequestError(404, msg, param="question_id") from None
    answer = _read_answer(sent.answer, metadata.answer, choices)
    if answer is None:
        msg = f"answer must be a {metadata.answer.kind} that can be read, as a gold answer."
        raise RequestError(400, msg, param="answer")
    try:
        is_new = await capture.correct(metadata.dataset, sent.question_id, answer)
    except TooManyAnswersError:
        msg = f"This question has had {MAX_ANSWERS} different right answers; the last one stays."
        raise RequestError(409, msg, param="question_id") from None
    return {"question_id": sent.question_id, "answer": answer, "is_new": is_new}


def _read_answer(value: Any, spec: AnswerSpec, choices: list[str] | None) -> str | None:
    if spec.kind == "labels" and isinstance(value, list):
        value = ", ".join(map(str, value)) or NO_LABELS
    if spec.kind == "json" and isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > MAX_CHARACTERS:
        return None
    return canonical(value, spec, choices) or None
