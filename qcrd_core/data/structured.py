"""JSON answers that the teacher's server enforces: a rationale, then the answer.

    response_format(answer)                                   key of a request to a chat API
    unfold('{"rationale": "Ann is 7.", "answer": {"age": 7}}')    ("Ann is 7.", '{"age": 7}')

A server that decodes by a schema lets a model write nothing else. With the schema of the answer
alone it would forbid the rationale, which is what a student learns, and a model that reasons first
answers better. So the schema holds both. Servers write the fields in the schema's order.
"""

import json
from typing import Any

from pydantic_core import from_json

from qcrd_core.data.answers import AnswerSpec

RATIONALE, ANSWER = "rationale", "answer"
_SHARED = ("$defs", "definitions")


def response_format(answer: AnswerSpec) -> dict[str, Any]:
    """Write the key `response_format`, as OpenAI, vLLM and others read it.

    `strict` is left out: with it, OpenAI refuses schemas in which a field is optional.

    Args:
        answer: Answers of kind json with a schema.
    """
    assert answer.json_schema is not None
    inner: dict[str, Any] = _moved(answer.json_schema)
    inner.pop("$schema", None)
    shared = {key: inner.pop(key) for key in _SHARED if key in inner}
    schema = {
        "type": "object",
        "properties": {RATIONALE: {"type": "string"}, ANSWER: inner},
        "required": [RATIONALE, ANSWER],
        "additionalProperties": False,
        **shared,
    }
    return {
        "type": "json_schema",
        "json_schema": {"name": "rationale_and_answer", "schema": schema},
    }


def fold_up(rationale: str, answer: str) -> str:
    """Write a demonstration as the server makes the teacher write."""
    try:
        value: Any = from_json(answer)
    except ValueError:
        value = answer
    return json.dumps({RATIONALE: rationale, ANSWER: value}, ensure_ascii=False)


def unfold(text: str) -> tuple[str, str] | None:
    """Take rationale and answer out of a completion.

    Args:
        text: A whole completion, without a thought.

    Returns:
        Both as texts; None if the completion has another form.
    """
    try:
        found = from_json(text.strip(), allow_inf_nan=False)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.keys() != {RATIONALE, ANSWER}:
        return None
    rationale, answer = found[RATIONALE], found[ANSWER]
    if not isinstance(rationale, str):
        return None
    return rationale.strip(), json.dumps(answer, ensure_ascii=False)


def _moved(schema: Any) -> Any:
    """The schema one level deeper: what refers to its root, or into it, finds it there."""
    if isinstance(schema, list):
        return [_moved(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    content = {key: _moved(value) for key, value in schema.items()}
    target = content.get("$ref")
    is_shared = isinstance(target, str) and target.startswith(tuple(f"#/{key}/" for key in _SHARED))
    if isinstance(target, str) and not is_shared and (target == "#" or target.startswith("#/")):
        content["$ref"] = f"#/properties/{ANSWER}{target[1:]}"
    return content
