"""JSON documents in free text.

    first_document('Here: {"b": 1.0, "a": "x"}.', None)    ('{"b": 1.0, "a": "x"}', canonical)

The canonical text has sorted keys, one space after `,` and `:`, whole numbers without decimals, and
texts in Unicode's composed form with single spaces. Results are as in
`qcrd_core.data.readers.numbers`.
"""

import functools
import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from pydantic_core import from_json

from qcrd_core.data.readers.numbers import NOTHING, Found

_MARK = re.compile(r'[{}\[\]"]|\\.')
_CLOSES = {"}": "{", "]": "["}
_EXACT = 2**53

IsValid = Callable[[Any], bool]


@functools.lru_cache(maxsize=16)
def schema_check(schema: str) -> IsValid:
    """Make a check of values against a JSON Schema.

    Args:
        schema: The schema as JSON text; it must be valid.
    """
    from jsonschema import Draft202012Validator  # takes a tenth of a second to import

    check: IsValid = Draft202012Validator(json.loads(schema)).is_valid
    return check


def schema_problem(schema: dict[str, Any]) -> str | None:
    """What is wrong with a JSON Schema; None if nothing is. References must stay inside of it."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return (
            f"{'.'.join(str(part) for part in error.absolute_path) or 'the whole'}: {error.message}"
        )
    outside = re.search(r'"\$(?:ref|dynamicRef)": "(?!#)([^"]*)"', json.dumps(schema))
    return None if outside is None else f"$ref leads elsewhere: {outside[1]}"


def first_document(text: str, is_valid: IsValid | None) -> Found:
    """Read the first object or list in a text that should be one."""
    return _chosen(_documents(text), is_valid)


def last_document(text: str, is_valid: IsValid | None) -> Found:
    """Read the last object or list of a text without a marker."""
    return _chosen(_documents(text)[::-1], is_valid)


def _chosen(documents: list[str], is_valid: IsValid | None) -> Found:
    found = NOTHING
    for shown in documents:
        try:
            value = from_json(shown, allow_inf_nan=False)
        except ValueError:
            continue
        if is_valid is None or is_valid(value):
            text = json.dumps(_canonical(value), sort_keys=True, ensure_ascii=False)
            return shown, text
        found = shown, None
    return found


def _documents(text: str) -> list[str]:
    """All outermost objects and lists of a text, found in one pass.

    Quotes count only inside of a document, because prose has single ones. After a bracket that
    nothing closes there is none: it may be a document that was cut.
    """
    start, in_text = 0, False
    found: list[str] = []
    opened: list[str] = []
    for match in _MARK.finditer(text):
        mark = match.group()
        if mark == '"':
            in_text = bool(opened) and not in_text
        elif in_text or mark[0] == "\\":
            continue
        elif mark in "{[":
            if not opened:
                start = match.start()
            opened.append(mark)
        elif opened:
            if opened.pop() != _CLOSES[mark]:
                opened.clear()  # no document; the next bracket may begin one
            elif not opened:
                found.append(text[start : match.end()])
    return found


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {_canonical(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, str):
        return " ".join(unicodedata.normalize("NFC", value).split())
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    return value
