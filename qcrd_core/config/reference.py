"""A setting as text: its type, default and an example; the same for pages and the terminal.

type_text(setting)      "integer, at least 1"
default_text(setting)   "5"
example(setting)        8
"""

import json
import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt, MinLen, MultipleOf
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from qcrd_core.config.names import Setting

_SIMPLE = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}
# Text that needs no quotes in YAML if it is not read as a number or a word such as `yes`.
_PLAIN = re.compile(r"[\w./:@ -]*[\w./]")
_UNREACHED = 10_000
"""Limits from here on are what memory and number formats set; nobody needs to know them."""
_LIMITS = (
    (Ge, "ge", "at least"),
    (Gt, "gt", "above"),
    (Le, "le", "at most"),
    (Lt, "lt", "below"),
    (MultipleOf, "multiple_of", "a multiple of"),
)


def type_text(setting: Setting) -> str:
    """What a setting takes, in words; choices by name."""
    kinds: dict[str, None] = {}
    for field in setting.fields:
        limits = [
            f"{words} {limit:,g}"
            for note in field.metadata
            for kind, attribute, words in _LIMITS
            if isinstance(note, kind) and (limit := getattr(note, attribute)) < _UNREACHED
        ]
        not_empty = ["not empty"] if any(isinstance(n, MinLen) for n in field.metadata) else []
        kinds[", ".join([" or ".join(_kinds(field.annotation)), *limits, *not_empty])] = None
    return " or ".join(kinds)


def short_type(setting: Setting) -> str:
    """The same without choices and limits, for a narrow column."""
    kinds: dict[str, None] = {}
    for field in setting.fields:
        choice = "choice" if _is_choice(field) else " or ".join(_kinds(field.annotation))
        kinds[choice] = None
    return " or ".join(kinds)


def default_text(setting: Setting) -> str:
    """A setting's default as YAML; `required` if it has none."""
    field = setting.fields[0]
    # A variant is chosen by its type, which must therefore be given.
    if field.is_required() or setting.name.endswith(".type"):
        return "required"
    return as_yaml(field.default)


def example(setting: Setting) -> Any:
    """A value that a setting may have: one that is declared, or else not the default."""
    field = setting.fields[0]
    if field.examples:
        return field.examples[0]
    if _is_choice(field):
        choices = _choices(field.annotation)
        return next((one for one in choices if one != field.default), choices[0])
    return not field.default if isinstance(field.default, bool) else field.default


def as_yaml(value: Any) -> str:
    """A value in one line of YAML."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(as_yaml(one) for one in value)}]"
    if isinstance(value, dict):
        return yaml.safe_dump(value, default_flow_style=True, width=_UNREACHED).strip()
    if isinstance(value, (str, Path)):
        text = str(value)
        is_plain = _PLAIN.fullmatch(text) and yaml.safe_load(text) == text
        return text if is_plain else json.dumps(text, ensure_ascii=False)
    return str(yaml.safe_dump(value)).partition("\n")[0]


def first_sentence(text: str) -> str:
    """A text up to its first full stop that ends a sentence."""
    return text.partition(". ")[0].rstrip(".") + "."


def _kinds(annotation: Any) -> list[str]:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kinds(parts[0])
    if origin in (Union, types.UnionType):
        found = [kind for part in parts if part is not type(None) for kind in _kinds(part)]
        return [*dict.fromkeys(found), *(["null"] if type(None) in parts else [])]
    if origin is Literal:
        return [str(part) for part in parts]
    if origin is dict:
        return ["mapping"]
    if origin is tuple and isinstance(parts[0], type) and issubclass(parts[0], BaseModel):
        return ["list of sections"]
    if origin is tuple:
        return [f"list of {_plural(' or '.join(_kinds(parts[0])))}"]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return ["text", "section"]
    return [_SIMPLE[annotation]]


def _plural(kind: str) -> str:
    return " or ".join(f"{one}s" for one in kind.split(" or "))


def _choices(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for part in get_args(annotation) for choice in _choices(part))


def _is_choice(field: FieldInfo) -> bool:
    return bool(_choices(field.annotation))
