"""The teacher's prompt: instruction and demonstrations first, the question last.

The shared part comes first, so that the engine's prefix cache keeps it. The question is the text of
table `questions`, which already includes the choices.
"""

from json import loads
from typing import Any

from qcrd_core.data.spec import DatasetSpec, Demonstration
from qcrd_core.data.structured import fold_up
from qcrd_core.data.templates import fill_template


def render_messages(
    spec: DatasetSpec, question: str, turns: str | None = None, *, is_structured: bool = False
) -> list[dict[str, str]]:
    """Write the prompt as chat messages.

    The instruction opens the first user message, because some chat templates have no system
    message. The turns of a conversation stay as they are; its system prompt comes first.

    Args:
        spec: The data set.
        question: Text of the question, from table `questions`.
        turns: Column `messages` of the question; None if it is no conversation.
        is_structured: Whether the server enforces a schema of rationale and answer, which the
            demonstrations then have too.

    Returns:
        Messages with `role` (user and assistant in turn, user last, after at most one system
        prompt) and `content`.
    """
    asked = [{"role": "user", "content": _ask(spec, question)}] if turns is None else loads(turns)
    system = [turn for turn in asked if turn["role"] == "system"]
    messages = []
    for demonstration in spec.prompt.demonstrations:
        shown = demonstration.question if turns else _ask(spec, demonstration.question)
        messages.append({"role": "user", "content": shown})
        completion = _completion(spec, demonstration)
        if is_structured:
            completion = fold_up(demonstration.rationale, demonstration.answer)
        messages.append({"role": "assistant", "content": completion})
    messages += asked[len(system) :]
    if spec.prompt.instruction is not None:
        messages[0]["content"] = f"{spec.prompt.instruction}\n\n{messages[0]['content']}"
    return [*system, *messages]


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
        "answer": spec.answer.identity(),
        # The same question as a text of a file is another prompt.
        **({"source": "chat"} if spec.is_chat else {}),
    }


def _ask(spec: DatasetSpec, question: str) -> str:
    return fill_template(spec.prompt.question_template, {"question": question})


def _completion(spec: DatasetSpec, demonstration: Demonstration) -> str:
    return f"{demonstration.rationale} {spec.answer.ending(demonstration.answer)}"
