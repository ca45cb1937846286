"""Settings as text: YAML files, overrides, and what is wrong with them in one line per problem."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qcrd_core.config.endpoints import ENDPOINT_TAGS
from qcrd_core.config.files import is_plain_text, load_yaml, read_ordinary
from qcrd_core.config.names import UnknownSettingError
from qcrd_core.errors import ConfigError

_SHIPPED = Path(__file__).parents[2]
"""Holds the folder `configs`: the clone, or the folder that qcrd is installed in."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping.

    Args:
        path: The file. If there is no `configs/NAME` here, the recipe that qcrd ships is read.

    Returns:
        Its content.

    Raises:
        ConfigError: If it is absent, unreadable, no YAML, or no mapping.
    """
    if path.parts[:1] == ("configs",) and not path.exists():
        path = _SHIPPED / path
    try:
        content = read_ordinary(path)
    except OSError as error:
        msg = f"{path} must be a readable YAML file; got {error.strerror}. Check the path."
        raise ConfigError(msg) from error
    return parse_yaml(content, str(path))


def parse_yaml(text: bytes | str, where: str) -> dict[str, Any]:
    """Read YAML text that must hold a mapping.

    Args:
        text: The YAML.
        where: How errors name it.

    Returns:
        Its content.

    Raises:
        ConfigError: If it is no YAML, or no mapping.
    """
    try:
        content = load_yaml(text)
    except ValueError as error:
        msg = f"{where} must be valid YAML; got {error}. Correct the file."
        raise ConfigError(msg) from error
    if not isinstance(content, dict):
        msg = f"{where} must hold a mapping of settings; got {type(content).__name__}."
        raise ConfigError(msg)
    return content


def explain(error: ValidationError, where: str) -> str:
    """Put a pydantic error into one line per problem.

    Args:
        error: What pydantic raised.
        where: The file or form the settings came from.

    Returns:
        Lines without pydantic's own jargon.
    """
    return "\n".join(_explain_one(item, where) for item in error.errors(include_url=False))


_UNION_TAGS = frozenset(
    {"hub", "folder", "scratch", "gguf_package", "imported", "files", "word_problems"}
    | ENDPOINT_TAGS
)


def _explain_one(item: Any, where: str) -> str:
    # A discriminated union puts its tag into the location; a user knows the setting without it.
    name = ".".join(str(part) for part in item["loc"] if part not in _UNION_TAGS)
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "extra_forbidden":  # of a variant that has other keys, or no file of settings
        return f"{name} is not a setting here ({where}). Check its spelling and its section."
    if kind == "missing":
        return f"{name} must be set; it has no default ({where})."
    if kind == "union_tag_not_found":
        return f"{name}.type must be set ({where}). docs/settings.md lists the types."
    if kind == "union_tag_invalid":
        return (
            f"{name}.type must be one of {context['expected_tags']}; got {context['tag']!r} "
            f"({where})."
        )
    if kind in {"model_type", "model_attributes_type"}:
        return f"{name} must be a section of settings; got {value!r:.80} ({where})."
    if kind == "value_error" and isinstance(context["error"], UnknownSettingError):
        return "\n".join(problem.text(where) for problem in context["error"].problems)
    if kind == "value_error":
        message = str(context["error"]).rstrip(".")
        return f"{message} ({where}{', ' + name if name else ''})."
    rule = item["msg"].removeprefix("Input should be ").removeprefix("a ").removeprefix("an ")
    shown = f"{value!r}"[:80]
    return f"{name} must be {rule}; got {shown} ({where})."


def parse_override(override: str) -> tuple[str, Any]:
    """Take a `section.key=value` text apart.

    Args:
        override: The text; its value is read as YAML.

    Returns:
        The dotted name and the value.

    Raises:
        ConfigError: If it has another form.
    """
    name, separator, text = override.partition("=")
    if not separator or not all(name.split(".")) or not is_plain_text(name):
        msg = (
            f"An override must have the form section.key=value; got {override!r} (command line). "
            "For example teacher.num_samples=4."
        )
        raise ConfigError(msg)
    try:
        return name, load_yaml(text)
    except ValueError as error:
        msg = f"{name} must be given a YAML value; got {text!r:.80}: {error} (command line)."
        raise ConfigError(msg) from error


def apply_setting(content: dict[str, Any], name: str, value: Any, where: str) -> None:
    """Put a value where its dotted name points.

    Args:
        content: Nested settings; changed.
        name: For example `teacher.num_samples`, or `teacher.others.0.num_samples` for the first
            section of a list.
        value: What is put there.
        where: How errors name the source.

    Raises:
        ConfigError: If the name leads through a value, or to a section that a list lacks.
    """
    *sections, last = name.split(".")
    node: Any = content
    for key in sections:
        child = _child(node, key, name, where)
        if not isinstance(child, dict | list):
            msg = f"{name} must name a setting below a section; {key} is a value ({where})."
            raise ConfigError(msg)
        node = child
    if isinstance(node, list):
        msg = f"{name} must name a setting of a section in a list; it names the section ({where})."
        raise ConfigError(msg)
    node[last] = value


def _child(node: Any, key: str, name: str, where: str) -> Any:
    if isinstance(node, dict):
        return node.setdefault(key, {})
    if key.isdecimal() and int(key) < len(node):
        return node[int(key)]
    msg = (
        f"{name} must name one of the {len(node)} sections of its list by its place, from 0; got "
        f"{key} ({where})."
    )
    raise ConfigError(msg)
