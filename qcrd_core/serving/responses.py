"""Answers in the form of the OpenAI-compatible API.

`content` is the canonical answer. Each choice also has `confidence`, `answered_by` and the
`question_id` under which the question is kept. The official clients keep and pass them on. A
question without an answer that can be read has no content and a `refusal`.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from qcrd_core.serving.batches import Answered
from qcrd_core.serving.requests import Asked

AnsweredBy = Literal["student", "teacher", "student_without_teacher"]
"""The last one: the student was not sure, and the teacher was away or gave no readable answer."""

_NO_ANSWER = "No answer could be read in what was written."


@dataclass(frozen=True)
class Reply:
    """The final answer to one question."""

    answer: str | None
    text: str
    """What was written, of which `answer` was read."""
    rationale: str | None
    confidence: float | None
    answered_by: AnsweredBy
    label: str
    """Which student."""
    num_prompt_tokens: int
    num_tokens: int
    is_finished: bool
    question_id: str | None = None
    """Id under which the question is kept; None if it is not."""

    @classmethod
    def of(cls, answered: Answered) -> "Reply":
        """The student's own reply."""
        reply = answered.reply
        return cls(
            answer=reply.answer,
            text=reply.text,
            rationale=reply.rationale,
            confidence=reply.confidence,
            answered_by="student",
            label=answered.student.label,
            num_prompt_tokens=reply.num_prompt_tokens,
            num_tokens=reply.num_tokens,
            is_finished=reply.is_finished,
        )


def completion(asked: Asked, replies: Sequence[Reply], model: str) -> bytes:
    """Write the answer to a request.

    Args:
        asked: The request.
        replies: One per question.
        model: Name of the served model.

    Returns:
        A JSON object.
    """
    choices = [_choice(asked, number, reply) for number, reply in enumerate(replies)]
    return orjson.dumps(
        {**_head(asked, replies, model), "choices": choices, "usage": _usage(replies)}
    )


def stream(asked: Asked, replies: Sequence[Reply], model: str) -> Iterator[bytes]:
    """Write the answer to a request as server-sent events.

    A student's answer is short and is read as a whole, so each question has one chunk.

    Args:
        asked: The request.
        replies: One per question.
        model: Name of the served model.

    Yields:
        Events; the last one is `[DONE]`.
    """
    head = _head(asked, replies, model)
    if asked.kind == "chat.completion":
        head["object"] = "chat.completion.chunk"
    for number, reply in enumerate(replies):
        choice = _choice(asked, number, reply)
        if asked.kind == "chat.completion":
            choice["delta"] = choice.pop("message")
        yield _event({**head, "choices": [choice]})
    if asked.has_stream_usage:
        yield _event({**head, "choices": [], "usage": _usage(replies)})
    yield b"data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"


def _head(asked: Asked, replies: Sequence[Reply], model: str) -> dict[str, Any]:
    prefix = "chatcmpl" if asked.kind == "chat.completion" else "cmpl"
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": asked.kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": replies[0].label,
    }


def _choice(asked: Asked, number: int, reply: Reply) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": number,
        "finish_reason": "stop" if reply.is_finished else "length",
        "logprobs": None,
        "confidence": reply.confidence,
        "answered_by": reply.answered_by,
        "question_id": reply.question_id,
    }
    if asked.kind == "text_completion":
        return {**choice, "text": reply.answer or ""}
    message: dict[str, Any] = {"role": "assistant", "content": reply.answer, "refusal": None}
    if reply.answer is None:
        message["refusal"] = _NO_ANSWER
    if reply.rationale is not None:
        message["reasoning_content"] = reply.rationale
    return {**choice, "message": message}


def _usage(replies: Sequence[Reply]) -> dict[str, int]:
    prompt = sum(reply.num_prompt_tokens for reply in replies)
    written = sum(reply.num_tokens for reply in replies)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
    }
