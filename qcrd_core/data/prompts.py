"""The teacher's prompt: instruction and demonstrations first, the question last.

The shared part comes first, so that the engine's prefix cache keeps it. The question is the text of
table `questions`, which already includes the choices.
"""

from typing import Any

from qcrd_core.data.spec import DatasetSpec, Demonstration
from qcrd_core.data.templates import fill_template


def render_messages(spec: DatasetSpec, question: str) -> list[dict[str, str]]:
    """Write the prompt as chat messages.

    The instruction opens the first user message, because some chat templates have no system
    message.

    Args:
        spec: The data set.
        question: Text of the question, from table `questions`.

    Returns:
        Messages with `role` (user and assistant in turn, user last) and `content`.
    """
    messages = []
    for demonstration in spec.prompt.demonstrations:
        messages.append({"role": "user", "content": _ask(spec, demonstration.question)})
        messages.append({"role": "assistant", "content": _completion(spec, demonstration)})
    messages.append({"role": "user", "content": _ask(spec, question)})
    if spec.prompt.instruction is not None:
        messages[0]["content"] = f"{spec.prompt.instruction}\n\n{messages[0]['content']}"
    return messages


def render_text(spec: DatasetSpec, question: str) -> str:
    """Write the prompt as one text for a completions endpoint.

    Args:
        spec: The data set.
        question: Text of the question, from table `questions`.

    Returns:
        Blocks separated by empty lines; the last block ends where the completion begins.
    """
    blocks = [] if spec.prompt.instruction is None else [spec.prompt.instruction]
    for demonstration in spec.prompt.demonstrations:
        blocks.append(f"{_ask(spec, demonstration.question)} {_completion(spec, demonstration)}")
    return "\n\n".join([*blocks, _ask(spec, question)])


def prompt_identity(spec: DatasetSpec) -> dict[str, Any]:
    """Collect the data set's part of a generation's fingerprint.

    Args:
        spec: The data set.

    Returns:
        JSON-able: the prompt, and the form of answers, because stored rows hold parsed answers.
    """
    return {
        **spec.prompt.model_dump(mode="json"),
        "answer": spec.answer.model_dump(mode="json"),
    }


def _ask(spec: DatasetSpec, question: str) -> str:
    return fill_template(spec.prompt.question_template, {"question": question})


def _completion(spec: DatasetSpec, demonstration: Demonstration) -> str:
    return f"{demonstration.rationale} {spec.answer.marker} {demonstration.answer}."
