"""Conversations as questions: the turns before the last answer, and that answer.

Reads OpenAI's fine-tuning lines (`messages` of role and content) and ShareGPT's (`conversations` of
from and value). The last turn is the gold answer if the assistant wrote it; everything before it is
the question. A question has two forms:

    messages    the turns as they are, for a chat API and for a student with a chat template
    question    the same as one text, for T5, a completions API, the discriminator and the reader:
                the only turn as it is, otherwise `System:`, `User:` and `Assistant:` before each
                turn, with an empty line between two
"""

import json
from collections.abc import Sequence
from typing import Any

from qcrd_core.data.files import Row
from qcrd_core.errors import DataError
from qcrd_core.ids import content_hash

QUESTION, GOLD, MESSAGES = "question", "gold_answer", "messages"
"""Columns that `chat_rows` adds."""
COLUMNS = ("messages", "conversations")
"""Columns of a conversation, of which a file must have one."""

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bot"), "assistant"),
}


def chat_rows(rows: Sequence[Row], where: str) -> list[Row]:
    """Split each conversation into its question and its last answer.

    Args:
        rows: Rows with a column `messages` or `conversations`.
        where: The file, for errors.

    Returns:
        The rows with columns question, gold_answer (None if the last turn is a user's) and
        messages (JSON).

    Raises:
        DataError: If a row has no such column, or its turns are not texts of user and assistant in
            turn, after at most one system prompt.
    """
    return [_row(row, f"{where}, row {number}") for number, row in enumerate(rows, start=1)]


def conversation_text(messages: Sequence[dict[str, str]]) -> str:
    """The turns before an answer as one text; see above."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in messages)


def conversation_key(messages: str) -> str:
    """A hash of how a conversation begins: of its system prompt and first turn.

    Rows that are cut from one conversation at several turns share it, so they share a split.
    """
    turns = json.loads(messages)
    first = next(number for number, turn in enumerate(turns) if turn["role"] == "user")
    return content_hash(*(turn["content"] for turn in turns[: first + 1]))


def _row(row: Row, where: str) -> Row:
    name = next((name for name in COLUMNS if row.get(name) is not None), None)
    if name is None:
        msg = (
            f"A conversation must be in a column {' or '.join(COLUMNS)}; got "
            f"{', '.join(sorted(row))} ({where}). Rename it, or set source.type to files."
        )
        raise DataError(msg)
    turns = row[name]
    if not isinstance(turns, list) or not turns:
        msg = f"Column {name} must hold a list of turns; got another value ({where}). Correct it."
        raise DataError(msg)
    messages = [_turn(turn, where) for turn in turns]
    _check_order(messages, where)
    answer = messages.pop()["content"] if messages[-1]["role"] == "assistant" else None
    return {
        **row,
        QUESTION: conversation_text(messages),
        GOLD: answer,
        MESSAGES: json.dumps(messages, ensure_ascii=False),
    }


def _turn(turn: Any, where: str) -> dict[str, str]:
    given = turn if isinstance(turn, dict) else {}
    said = given.get("role", given.get("from"))
    role = _ROLES.get(said) if isinstance(said, str) else None
    if role is None or given.get("tool_calls") or given.get("function_call"):
        msg = (
            "A turn must be of role system, user or assistant, without calls of tools; got "
            f"{said!r:.40} ({where}). Leave out this conversation."
        )
        raise DataError(msg)
    content = given.get("content", given.get("value"))
    if isinstance(content, list):
        content = _joined(content)
    if not isinstance(content, str) or not content.strip():
        msg = (
            f"A turn must be a text that is not empty; got another from the {role} ({where}). "
            "Leave out this conversation."
        )
        raise DataError(msg)
    return {"role": role, "content": content.strip()}


def _joined(parts: Sequence[Any]) -> str | None:
    """The text of a content that is a list of parts; None if one is an image or something else."""
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    return "".join(text for text in texts if text) if None not in texts else None


def _check_order(messages: Sequence[dict[str, str]], where: str) -> None:
    spoken = messages[messages[0]["role"] == "system" :]
    wanted = [("user", "assistant")[number % 2] for number in range(len(spoken))]
    if not spoken or [turn["role"] for turn in spoken] != wanted:
        msg = (
            "A conversation must have at most one system prompt, then user and assistant in turn; "
            f"got {', '.join(turn['role'] for turn in messages)[:80]} ({where}). Correct it, or "
            "leave it out."
        )
        raise DataError(msg)
