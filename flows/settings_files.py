"""Files of settings as a form offers them, `settings: SettingsFile = "configs/first.yaml"`."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

_FOLDERS = (".", "configs", "data", "/data")
"""Where files of settings are: those that `qcrd init` wrote, those that are shipped, your own, and
your own in a container."""


def settings_files() -> list[str]:
    """Files of settings that the form offers, when the deployment is applied."""
    found = [path for folder in _FOLDERS for path in sorted(Path(folder).glob("*.yaml"))]
    readable = [path for path in found if path.is_file() and os.access(path, os.R_OK)]
    return [str(path) for path in readable if _holds_run(path)]


class _OneOfTheFiles:
    """Lets the form offer the files as a choice; Prefect refuses another value."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "enum": settings_files()}


def _holds_run(path: Path) -> bool:
    # A bench and a data set are YAML files too. Which one it is shows without reading its values.
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    sections = {line.partition(":")[0] for line in lines}
    return {"run", "teacher", "student"} <= sections and "methods" not in sections


SettingsFile = Annotated[str, _OneOfTheFiles()]
"""Path of a file of settings. The list is made when the deployment is applied, and the file is read
when the run starts."""
