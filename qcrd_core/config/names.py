"""All settings of a model by their dotted names, and what to say to a name that is none.

    settings_of(RunConfig)["teacher.num_samples"].meaning    "K, rationales per question."
    check_names(RunConfig, content)                          raises for `training.num_round`

A setting is a key that holds a value. A key that holds settings is a section; one that takes a
value in place of its section (`teacher.endpoints: pool.yaml`) is listed too, but not counted.
"""

import difflib
import functools
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
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
    variants: tuple[str, ...] = ()
    """The `type` of each variant of its section that has it; empty if all have."""
    is_repeated: bool = False
    """Whether it means what a setting of the section around its list means, which pages list."""

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
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        """One line per problem."""
        return "\n".join(problem.text() for problem in self.problems)


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
        found[setting.name] = setting if known is None else _joined(known, setting)
    return found


def _joined(first: Setting, second: Setting) -> Setting:
    """One setting of a key that two variants of a section share."""
    return Setting(
        first.name,
        (*first.fields, *second.fields),
        first.is_expert and second.is_expert,
        first.holds_settings,
        (*first.variants, *second.variants),
        first.is_repeated,
    )


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
        return _reads_text(parts[1:]) or takes_value(parts[0])
    if origin in (Union, types.UnionType):
        return any(takes_value(part) for part in parts)
    return annotation is not type(None) and not (
        isinstance(annotation, type) and issubclass(annotation, BaseModel)
    )


def _reads_text(metadata: Sequence[Any]) -> bool:
    """Whether a validator turns a text into settings before they are read."""
    return any(isinstance(note, BeforeValidator) for note in metadata)


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
    free = {name for name, setting in names.items() if _is_mapping(setting)}
    unknown = list(_unknown(content, "", frozenset(known), free))
    if unknown:
        raise UnknownSettingError([unknown_setting(name, known, listed_by) for name in unknown])


def unknown_setting(name: str, known: Sequence[str], listed_by: str) -> Problem:
    """Say that a name is no setting, and which is the nearest.

    Args:
        name: The name.
        known: All names.
        listed_by: Command that lists them.

    Returns:
        The problem.
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    remedy = f"Did you mean {near[0]}?" if near else f"Run `{listed_by}` to list all."
    # A damaged file may hold names that a terminal would obey.
    shown = name if name.isprintable() else repr(name)
    return Problem(f"{shown} is not a setting", remedy)


def _is_mapping(setting: Setting) -> bool:
    """Whether its value is a mapping with keys of the user's own."""
    kinds = {
        get_origin(part)
        for field in setting.fields
        for part in (field.annotation, *get_args(field.annotation))  # `dict | None` too
    }
    return dict in kinds


def _unknown(
    content: Mapping[str, Any], prefix: str, known: frozenset[str], free: Collection[str]
) -> Iterator[str]:
    for key, value in content.items():
        name = f"{prefix}{key}"
        if name not in known:
            yield name
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, Mapping) and name not in free:
                yield from _unknown(part, f"{name}.", known, free)


def _walk(
    model: type[BaseModel],
    prefix: str,
    *,
    is_expert: bool,
    is_repeated: bool = False,
    variants: tuple[str, ...] = (),
) -> Iterator[Setting]:
    experts: frozenset[str] = getattr(model, "expert", frozenset())
    for key, entry in model.model_fields.items():
        name, is_for_experts = f"{prefix}{key}", is_expert or key in experts
        sections = sections_in(entry.annotation)
        if not sections or _reads_text(entry.metadata) or takes_value(entry.annotation):
            of_type = () if key == "type" else variants
            yield Setting(name, (entry,), is_for_experts, bool(sections), of_type, is_repeated)
        for section in sections:
            kind = section.model_fields["type"].default if len(sections) > 1 else None
            yield from _walk(
                section,
                f"{name}.",
                is_expert=is_for_experts,
                # A list of sections like the one around it, as in `teacher.others`.
                is_repeated=is_repeated or issubclass(model, section),
                variants=variants if kind is None else (kind,),
            )
