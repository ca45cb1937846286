"""What kind of answer a column holds."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import from_json

from qcrd_core.data.answers import AnswerSpec, canonical
from qcrd_core.data.guess.columns import is_label_name
from qcrd_core.data.readers.texts import fold

MARKER = "The answer is"
_MOST_LABELS, _LONGEST_LABEL = 100, 60
_ROWS_PER_LABEL = 3
_MOSTLY, _SEVERAL = 0.95, 0.1
_AFTER = ("####", "The answer is", "Final answer:", "Answer:")
_TEXT = AnswerSpec(kind="text")
_NUMBER = re.compile(
    r"[^\w\s]{0,2}\s?[-+−]?[^\w\s]?\s?[0-9][0-9.,'’\s]*(?:/\s?[0-9]+)?\s?(?:[%€$£°²³]|[^\W\d]+\.?"  # noqa: RUF001
    r"(?:\s[^\W\d]+)?)?[\s.]*"
)
_COMMA_IS_DECIMAL = re.compile(r"\d,(?:\d{1,2}|\d{4,})(?!\d)|\.\d{3},\d")
_POINT_IS_DECIMAL = re.compile(r"\d\.(?:\d{1,2}|\d{4,})(?!\d)|,\d{3}\.\d|\b0\.\d")
_SEPARATORS = (";", "|", ",")


@dataclass(frozen=True)
class Kind:
    """Form of the answers of a column."""

    answer: dict[str, Any]
    """Settings of section `answer`."""
    columns: dict[str, Any]
    """Settings of section `columns` that belong to it."""
    reason: str
    warnings: tuple[str, ...] = ()
    is_first_of_list: bool = False
    """Whether the rows hold lists of which the first item is the answer."""


def guess_kind(name: str, values: Sequence[Any], choices: Sequence[Any] | None) -> Kind:
    """Guess the form of answers.

    Args:
        name: The column.
        values: Its values that are not empty, at least one.
        choices: The choices of as many rows, or None if the questions have none.

    Returns:
        The first kind that fits: choice, json, labels, number, label, text.
    """
    if choices is not None:
        return _choice(values, choices)
    if all(isinstance(value, list) for value in values):
        return _lists(values)
    if all(isinstance(value, dict | list) for value in values):
        return _json("a structure in each row")
    texts = [str(value).strip() for value in values]
    documents = [_document(text) for text in texts]
    if all(isinstance(document, list) for document in documents):
        return _lists(documents)
    if _share(documents, _is_there) >= _MOSTLY:
        return _json(f"JSON in {_percent(_share(documents, _is_there))} of the rows")
    boxed = [canonical(text, _TEXT, None) for text in texts if "\\boxed" in text]
    if len(boxed) == len(texts) and all(boxed):
        inner = guess_kind(name, boxed, None)
        return Kind(inner.answer, {}, f"{inner.reason}, in \\boxed of every row", inner.warnings)
    for mark in _AFTER:
        if _share(texts, lambda text, mark=mark: mark in text) == 1:
            inner = guess_kind(name, [text.rpartition(mark)[2].strip() for text in texts], None)
            reason = f"{inner.reason}, behind {mark!r} in every row"
            columns = {**inner.columns, "gold_after": mark}
            return Kind(inner.answer, columns, reason, inner.warnings)
    return _plain_kind(name, texts)


def _plain_kind(name: str, texts: Sequence[str]) -> Kind:
    labels, (members, separator) = _labels(texts), _members(texts)
    is_number = _share(texts, lambda text: bool(_NUMBER.fullmatch(text))) >= _MOSTLY
    if is_number and not (labels and is_label_name(name)):
        return _number(texts)
    if members and (not labels or len(members) <= len(labels)):
        shown = f"several of {len(members)} labels, separated by {separator!r}"
        return Kind({"kind": "labels", "labels": members}, {}, shown)
    if not labels:
        is_one = len(set(texts)) == 1 < len(texts)
        reason = "the same text in all rows" if is_one else "texts that hardly repeat"
        return Kind({"kind": "text"}, {}, reason)
    shown = f"one of {len(labels)} labels, each in {len(texts) / len(labels):.0f} rows on average"
    warnings: tuple[str, ...] = ()
    if is_number:
        warnings = (
            "The labels are numbers. A teacher knows only names: list them in "
            "columns.gold_names and in answer.labels.",
        )
    return Kind({"kind": "label", "labels": labels}, {}, shown, warnings)


def _members(texts: Sequence[str]) -> tuple[list[str], str]:
    """The labels of which these texts name several, and what separates them; [] if they do not."""
    for separator in _SEPARATORS:
        sets = [[part.strip() for part in text.split(separator)] for text in texts]
        if _share(sets, lambda parts: len(parts) > 1) < _SEVERAL:
            continue
        labels = _labels([part for parts in sets for part in parts if part])
        if labels and not any("," in label for label in labels):
            return labels, separator
    return [], ""


def _choice(values: Sequence[Any], choices: Sequence[Any]) -> Kind:
    kind = {"kind": "choice"}
    texts = [str(value).strip() for value in values]
    options = [_texts_of(items) for items in choices]
    are_digits = all(text.removesuffix(".0").isdecimal() for text in texts)
    have_letters = any(isinstance(items, dict) and items.get("label") for items in choices)
    are_named = all(text in items for text, items in zip(texts, options, strict=False))
    if not are_digits or have_letters or are_named:
        return Kind(kind, {}, "letter or text of a choice")
    numbers = [int(text.removesuffix(".0")) for text in texts]
    if any(number == len(items) for number, items in zip(numbers, options, strict=False)):
        return Kind(kind, {"gold_index": 1}, "number of a choice, counted from 1")
    warnings: tuple[str, ...] = ()
    if 0 not in numbers:
        warnings = (
            "No answer is 0 and none is the last number: columns.gold_index says 0, but check it.",
        )
    return Kind(kind, {"gold_index": 0}, "number of a choice, counted from 0", warnings)


def _texts_of(items: Any) -> list[str]:
    if isinstance(items, str):
        items = from_json(items)
    if isinstance(items, dict):
        items = items.get("text", [])
    return [str(item.get("text") if isinstance(item, dict) else item) for item in items]


def _lists(values: Sequence[list[Any]]) -> Kind:
    if any(isinstance(item, dict | list) for value in values for item in value):
        return _json("a list of structures in each row")
    items = [str(item).strip() for value in values for item in value]
    labels = _labels(items)
    if labels and not any("," in label for label in labels):
        return Kind({"kind": "labels", "labels": labels}, {}, f"lists of {len(labels)} labels")
    # A list of equivalent answers, as in SQuAD.
    return Kind({"kind": "text"}, {}, "the first text of each list", is_first_of_list=True)


def _json(reason: str) -> Kind:
    return Kind({"kind": "json"}, {}, reason)


def _number(texts: Sequence[str]) -> Kind:
    num_commas = sum(bool(_COMMA_IS_DECIMAL.search(text)) for text in texts)
    num_points = sum(bool(_POINT_IS_DECIMAL.search(text)) for text in texts)
    mark: Literal[".", ","] = "," if num_commas > num_points else "."
    answer = {"kind": "number"} | ({"decimal_mark": ","} if mark == "," else {})
    spec = AnswerSpec.model_validate(answer)
    shown = _percent(_share(texts, lambda text: canonical(text, spec, None) is not None))
    reason = f"{shown} of the rows are numbers"
    warnings: tuple[str, ...] = ()
    if mark == ",":
        reason += f", {num_commas} with a decimal comma"
    if num_commas and num_points:
        warnings = (
            f"{num_commas} numbers are written with a decimal comma and {num_points} with a point. "
            f"What can be read in two ways is read with {mark!r}.",
        )
    return Kind(answer, {}, reason, warnings)


def _labels(texts: Sequence[str]) -> list[str]:
    """The labels that these texts repeat, the most frequent spelling of each; [] if they do not."""
    counts = Counter(texts)
    spellings: dict[str, str] = {}
    for text, _ in counts.most_common():
        spellings.setdefault(fold(text), text)
    is_few = len(spellings) <= _MOST_LABELS and len(texts) >= _ROWS_PER_LABEL * len(spellings)
    is_short = all(0 < len(text) <= _LONGEST_LABEL and fold(text) for text in counts)
    return sorted(spellings.values()) if is_few and is_short and len(spellings) > 1 else []


def _document(text: str) -> Any:
    """The JSON object or list that a text is; None if it is none."""
    if text[:1] not in {"{", "["}:
        return None
    try:
        found = from_json(text)
    except ValueError:
        return None
    return found if isinstance(found, dict | list) else None


def _is_there(value: Any) -> bool:
    return value is not None


def json_keys(values: Sequence[Any]) -> list[str]:
    """Keys of the documents of a column, in the order of the first ones."""
    keys: dict[str, None] = {}
    for value in values:
        document = _document(value.strip()) if isinstance(value, str) else value
        for item in document if isinstance(document, list) else [document]:
            keys.update(dict.fromkeys(item if isinstance(item, dict) else ()))
    return list(keys)


def _share(values: Sequence[Any], holds: Any) -> float:
    return sum(bool(holds(value)) for value in values) / len(values)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share in (0, 1) else f"{share:.1%}"
