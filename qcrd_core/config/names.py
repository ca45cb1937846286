"""All settings of a model by their dotted names, and what to say to a name that is none.

    settings_of(RunConfig)["teacher.num_samples"].meaning    "K, rationales per question."
    check_names(RunConfig, content)                          raises for `training.num_round`

A setting is a key that holds a value. A key that holds settings is a section; one that takes a
value in place of its section (`teacher.endpoints: pool.yaml`) is listed too, but not counted.
"""

import difflib
import functools
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Setting:
    """One key of a YAML file."""

    name: str
    """Dotted, for example `teacher.num_samples`."""
    fields: tuple[FieldInfo, ...]
    """What the models say of it; several if variants of a section share the key."""
    is_expert: bool
    holds_settings: bool
    """Whether it is a section that may also be given as one value."""

    @property
    def meaning(self) -> str:
        """Its description, on one line."""
        return " ".join((self.fields[0].description or "").split())


@dataclass(frozen=True)
class Problem:
    """What is wrong with a name; the file or form goes between the two parts."""

    what: str
    remedy: str = ""

    def text(self, where: str = "") -> str:
        """One line, for example `a.b is not a setting (a.yaml). Did you mean a.c?`."""
        place = f" ({where})" if where else ""
        return f"{self.what}{place}. {self.remedy}".rstrip()


class UnknownSettingError(ValueError):
    """Names that are no settings; pydantic wraps it, `explain` takes its problems out again."""

    def __init__(self, problems: list[Problem]) -> None:
        """Keep the problems, at least one."""
        super().__init__("\n".join(problem.text() for problem in problems))
        self.problems = problems


@functools.cache
def settings_of(model: type[BaseModel]) -> Mapping[str, Setting]:
    """List what a file of this model may set.

    Args:
        model: `RunConfig` or `DatasetSpec`.

    Returns:
        Settings by dotted name, in the order of the models.
    """
    found: dict[str, Setting] = {}
    for setting in _walk(model, "", is_expert=False):
        known = found.get(setting.name)
        fields = (*known.fields, *setting.fields) if known else setting.fields
        found[setting.name] = Setting(
            setting.name,
            fields,
            setting.is_expert and (known is None or known.is_expert),
            setting.holds_settings,
        )
    return found


def sections_in(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The models that a type is made of, for example both of `Endpoint | Path`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    if get_origin(annotation) is Literal:
        return ()
    return tuple(found for part in get_args(annotation) for found in sections_in(part))


def takes_value(annotation: Any) -> bool:
    """Whether a type takes anything but settings and null."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return any(hasattr(note, "json_schema_input_type") for note in parts[1:]) or takes_value(
            parts[0]
        )
    if origin in (Union, types.UnionType):
        return any(takes_value(part) for part in parts)
    return annotation is not type(None) and not (
        isinstance(annotation, type) and issubclass(annotation, BaseModel)
    )


def check_names(model: type[BaseModel], content: Mapping[str, Any], *, listed_by: str) -> None:
    """Refuse names that the model does not know, with the nearest that it knows.

    Args:
        model: `RunConfig` or `DatasetSpec`.
        content: Nested settings, as read from YAML.
        listed_by: Command that lists all names.

    Raises:
        UnknownSettingError: If there is such a name; it has all of them.
    """
    names = settings_of(model)
    sections = {name[:at] for name in names for at, letter in enumerate(name) if letter == "."}
    known = [*names, *sorted(sections - names.keys())]
    unknown = list(_unknown(content, "", frozenset(known)))
    if unknown:
        raise UnknownSettingError([_problem(name, known, listed_by) for name in unknown])


def _problem(name: str, known: list[str], listed_by: str) -> Problem:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    remedy = f"Did you mean {near[0]}?" if near else f"Run `{listed_by}` to list all."
    return Problem(f"{name} is not a setting", remedy)


def _unknown(content: Mapping[str, Any], prefix: str, known: frozenset[str]) -> Iterator[str]:
    for key, value in content.items():
        name = f"{prefix}{key}"
        if name not in known:
            yield name
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, Mapping):
                yield from _unknown(part, f"{name}.", known)


def _walk(model: type[BaseModel], prefix: str, *, is_expert: bool) -> Iterator[Setting]:
    experts: frozenset[str] = getattr(model, "expert", frozenset())
    for key, entry in model.model_fields.items():
        name, is_for_experts = f"{prefix}{key}", is_expert or key in experts
        annotation = Annotated[entry.annotation, *entry.metadata, None]
        sections = sections_in(annotation)
        if not sections or takes_value(annotation):
            yield Setting(name, (entry,), is_for_experts, bool(sections))
        for section in sections:
            yield from _walk(section, f"{name}.", is_expert=is_for_experts)
