"""Reads files that people or other machines wrote: YAML and JSON, within bounds, as typed values.

    content = read_ordinary(path)                     the bytes of a file, never of a pipe or device
    settings = load_yaml(content)                     plain values: no dates of month 99, no bombs
    result = parse_json(content, Result, "result.json")      the typed value, or one sentence

A file may be cut, foreign or hostile. All of them end in one of the errors that are named here.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from yaml.constructor import ConstructorError

from qcrd_core.errors import StoreError

_MAX_YAML_BYTES = 256 * 1024
"""A list of a few thousand servers. PyYAML reads as much in about two seconds."""
_MAX_DEPTH = 32
_MAX_VALUES = 50_000
_MAX_INTEGER = 2**63 - 1
_MAX_PLACE = 80

Shape = TypeVar("Shape")


def read_ordinary(path: Path) -> bytes:
    """Read a whole file.

    Args:
        path: The file. A pipe could make us wait forever, and a device never ends.

    Returns:
        Its bytes.

    Raises:
        OSError: If it is absent, unreadable, or not an ordinary file.
    """
    check_ordinary(path)
    return path.read_bytes()


def check_ordinary(path: Path) -> None:
    """Refuse what is not an ordinary file.

    Raises:
        OSError: If it is absent, a folder, a pipe, a device, or its name cannot be one.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a name with a null character
        raise OSError(errno.EINVAL, str(error)) from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a folder")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "a pipe or a device")


def write_private(path: Path, text: str) -> None:
    """Write a new file that only this user can read.

    Args:
        path: File to write.
        text: Its content.

    Raises:
        FileExistsError: If it exists.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def expand_user(text: str) -> Path:
    """Replace a leading `~` or `~name` by that user's folder; of an unknown user it stays."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def load_yaml(text: bytes | str) -> Any:
    """Read YAML as plain values: mappings by text, lists, texts, numbers of 64 bits, dates.

    Args:
        text: The YAML.

    Returns:
        Its content. What aliases repeat counts each time.

    Raises:
        ValueError: If it is no YAML, or exceeds a bound; the message has one line.
    """
    if len(text) > _MAX_YAML_BYTES:
        msg = f"{len(text):,} bytes, more than {_MAX_YAML_BYTES:,}"
        raise ValueError(msg)
    try:
        content = yaml.load(text, _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError(_TOO_MUCH) from error
    _check_values(content)
    return content


_TOO_MUCH = f"more than {_MAX_DEPTH} levels or {_MAX_VALUES:,} values"


class _Loader(yaml.SafeLoader):
    """A scalar that is not of the type that it looks like is an error with its line."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As PyYAML, which takes seconds to reach Python's limit of recursion."""
        if self._depth > _MAX_DEPTH:
            raise RecursionError
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, ArithmeticError, AttributeError, TypeError) as error:
            problem = f"a value that is no {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, problem, node.start_mark) from error


def _check_values(content: Any) -> None:
    num_values, rest = 0, [(content, 0)]
    while rest:
        value, depth = rest.pop()
        num_values += 1
        if depth > _MAX_DEPTH or num_values > _MAX_VALUES:
            raise ValueError(_TOO_MUCH)
        if isinstance(value, dict):
            names = [n for n in value if not (isinstance(n, str) and n.isprintable())]
            if names:
                msg = f"the key {names[0]!r:.80}, which is no plain text"
                raise ValueError(msg)
            rest += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list | tuple | set):
            rest += [(part, depth + 1) for part in value]
        elif isinstance(value, int) and abs(value) > _MAX_INTEGER:
            msg = "an integer of more than 64 bits"
            raise ValueError(msg)
        elif isinstance(value, str) and not is_plain_text(value):
            msg = f"the text {value!r:.80}, with a character that no file may hold"
            raise ValueError(msg)


def is_plain_text(text: str) -> bool:
    """Whether a text has neither a null character nor half of a surrogate pair."""
    return "\x00" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def parse_json(content: bytes, shape: type[Shape], where: str) -> Shape:
    """Read JSON that qcrd wrote, as what it wrote.

    Args:
        content: The JSON.
        shape: A pydantic model, a dataclass, or a type such as `dict[str, int]`.
        where: How errors name the file.

    Returns:
        The value.

    Raises:
        StoreError: If it is no JSON, or has another shape; names the first problem.
    """
    try:
        value: Shape = _adapter(shape).validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    else:
        return value
    if first["type"] == "json_invalid":
        msg = f"{where} must be valid JSON; got {first['ctx']['error']}. Restore or delete it."
        raise StoreError(msg)
    place = repr(".".join(str(part) for part in first["loc"]))[1:-1][:_MAX_PLACE]
    rule = first["msg"].removeprefix("Value error, ")
    shown = "" if first["type"] == "missing" else f", got {first['input']!r:.80}"
    msg = (
        f"{where} must be as qcrd wrote it; got another content: {f'{place}: ' if place else ''}"
        f"{rule}{shown}. Restore or delete it."
    )
    raise StoreError(msg)


_adapters: dict[Any, TypeAdapter[Any]] = {}


def _adapter(shape: Any) -> TypeAdapter[Any]:
    """Made once per shape, because making it takes a hundred times as long as reading a file."""
    if shape not in _adapters:
        _adapters[shape] = TypeAdapter(shape)
    return _adapters[shape]
