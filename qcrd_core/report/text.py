"""Format numbers, texts from outside and lines of a terminal for a reader."""

import re
from collections.abc import Iterable, Sequence

from qcrd_core.config.models import (
    FolderModel,
    GgufPackageModel,
    HubModel,
    ImportedModel,
    TeacherModel,
)
from qcrd_core.config.teacher import OneTeacher

TERMINAL_WIDTH = 100
"""Greatest number of columns in a terminal line."""

_MAX_CHARACTERS = 1_500
# C0 and C1 controls except tab and newline, bidi marks, line separators, lone surrogates, BOM.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def percent(share: float | None) -> str:
    """A share as text, one decimal; `not measured` for None."""
    return "not measured" if share is None else f"{share:.1%}"


def number(value: float | None) -> str:
    """A number as text: whole numbers with separators, others with three decimals."""
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3f}"


def seconds(value: float) -> str:
    """A duration as text, in the unit that suits it."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def plain_name(name: str) -> str:
    """`num_rationales_too_long` as `rationales too long`."""
    return name.removeprefix("num_").replace("_", " ")


def visible(text: str) -> str:
    """Make characters visible that could hide, reorder or break text."""
    return _HIDDEN.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def shorten(text: str, length: int) -> str:
    """Cut a text at `length` characters, with an ellipsis if something was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def fit(line: str) -> str:
    """A line that fits into a terminal and hides no characters."""
    return shorten(visible(line), TERMINAL_WIDTH)


def columns(cells: Iterable[tuple[str, int]], gap: str = "") -> str:
    """A row of a table. A negative width aligns its text to the left, a positive to the right."""
    texts = (f"{text:<{-width}}" if width < 0 else f"{text:>{width}}" for text, width in cells)
    return gap.join(texts).rstrip()


def clip(text: str) -> str:
    """Cut a very long text, and say how much was cut."""
    gone = len(text) - _MAX_CHARACTERS
    return f"{text[:_MAX_CHARACTERS]} … ({gone:,} more characters)" if gone > 0 else text


def teacher_name(model: TeacherModel) -> str:
    """Name the teacher in a few words."""
    match model:
        case HubModel():
            return model.name
        case FolderModel():
            return str(model.path)
        case GgufPackageModel():
            adapter = f" with {model.adapter.name}" if model.adapter else ""
            return f"{model.package}{adapter}"
        case ImportedModel():
            return f"imported rationales {model.generation}"


def teacher_names(teachers: Sequence[OneTeacher]) -> list[str]:
    """Name each teacher of a run; a model that is asked twice is numbered."""
    names = [teacher_name(teacher.model) for teacher in teachers]
    return [
        f"{name} ({names[: place + 1].count(name)})" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]
