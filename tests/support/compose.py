"""docker-compose.yml as Compose reads it: merged, and with its variables replaced."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:?[-?])([^}]*))?\}")


def services(variables: Mapping[str, str]) -> dict[str, Any]:
    """The services.

    Args:
        variables: What the environment or `.env` holds.

    Returns:
        Each service by its name.

    Raises:
        KeyError: If a required variable is missing.
    """
    content = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    found: dict[str, Any] = _replace(content["services"], variables)
    return found


def _replace(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replace(one, variables) for key, one in value.items()}
    if isinstance(value, list):
        return [_replace(one, variables) for one in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: _find(found, variables), value)
    return value


def _find(found: re.Match[str], variables: Mapping[str, str]) -> str:
    name, operator, default = found.groups()
    if variables.get(name) or (name in variables and operator in {"-", "?"}):
        return variables[name]
    if operator in {"?", ":?"}:
        raise KeyError(name)
    return default or ""
