"""Choices of a question, and which of them a source calls the right one."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import from_json

from qcrd_core.data.files import Row, cell
from qcrd_core.errors import DataError

_MAX_CHOICES = 26


@dataclass(frozen=True)
class Choices:
    """The choices of one question."""

    texts: list[str]
    letters: list[str]
    """The source's own letters or numbers of the choices; empty if it has none."""
    are_numbers: bool
    """Whether the source holds numbers rather than texts."""


def read_choices(row: Row, columns: str | tuple[str, ...], where: str) -> Choices:
    """Read the choices of a source row.

    Args:
        row: The row.
        columns: `columns.choices`: a column with a list, a JSON list as text, a list of `{text,
            label}`, or `{text: [...], label: [...]}`; or one column per choice.
        where: The row's place, for errors.

    Returns:
        2 to 26 choices.

    Raises:
        DataError: If the row holds anything else.
    """
    if isinstance(columns, str):
        values: Any = cell(row, columns)
        if isinstance(values, str):
            try:
                values = from_json(values)
            except ValueError:
                values = None
    else:
        values = [cell(row, name) for name in columns]
    letters: Any = []
    if isinstance(values, dict):
        values, letters = values.get("text"), values.get("label", [])
    elif isinstance(values, list) and all(isinstance(value, dict) for value in values):
        letters = [cell(value, "label") or "" for value in values]
        values = [cell(value, "text") for value in values]
    values = values if isinstance(values, list) else []
    letters = letters if isinstance(letters, list) else []
    texts = [str(value).strip() for value in values]
    is_whole = all(texts) and None not in values and len(letters) in {0, len(texts)}
    if not 2 <= len(texts) <= _MAX_CHOICES or not is_whole:
        msg = (
            f"Choices must be a list of 2 to {_MAX_CHOICES} texts; got something else ({where}). "
            'In CSV, write a JSON list such as ["cat", "dog"], or name one column per choice.'
        )
        raise DataError(msg)
    are_numbers = any(isinstance(value, int | float) for value in values)
    return Choices(texts, [str(letter).strip() for letter in letters], are_numbers)


def numbered_choice(
    value: Any, raw: str, choices: Choices, counted_from: Literal[0, 1] | None
) -> str | None:
    """The choice that a gold answer names by the source's letter or by its number.

    Args:
        value: The gold answer as the source holds it.
        raw: The same as text.
        choices: The question's choices.
        counted_from: `columns.gold_index`. None: only an integer beside choices that are texts is
            a number of a choice, from 0, as in MMLU.

    Returns:
        Text of the choice, or None if it is named in another way.
    """
    if raw in choices.letters:
        return choices.texts[choices.letters.index(raw)]
    if counted_from is None and (type(value) is not int or choices.are_numbers):
        return None
    digits = raw.removesuffix(".0")
    index = int(digits) - (counted_from or 0) if digits.isdecimal() else -1
    return choices.texts[index] if 0 <= index < len(choices.texts) else None
