"""The flow `distill-file`: `distill` with the settings of a file, for a form of one screen.

The form of `distill` has a field for every setting. People keep their settings in files, as
`qcrd run` reads them, and change few of them from run to run.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from flows.distill import run_stages
from qcrd_core.config.run import RunConfig, load_config
from tasks.logs import show_core_logs
from tasks.teacher import prepare_run

_FOLDERS = ("configs", "data", "/data")
"""Where files of settings are: those that are shipped, your own, and your own in a container."""


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


def chosen_config(
    settings: str,
    *,
    name: str = "",
    questions: str = "",
    teacher: str = "",
    student: str = "",
    num_samples: int | None = None,
    changes: tuple[str, ...] = (),
) -> RunConfig:
    """Read a file of settings and apply what the form changes.

    Args:
        settings: The YAML file.
        name: run.name. Empty: the file's, as for the next four.
        questions: data.dataset.
        teacher: teacher.model.
        student: student.model.
        num_samples: teacher.num_samples.
        changes: `section.key=value` texts, applied last.

    Returns:
        The configuration.

    Raises:
        ConfigError: If the file is absent, or a setting breaks a rule.
    """
    fields = {
        "run.name": name,
        "data.dataset": questions,
        "teacher.model": teacher,
        "student.model": student,
        "teacher.num_samples": num_samples,
    }
    given = [f"{key}={json.dumps(value)}" for key, value in fields.items() if value]
    return load_config(Path(settings), (*given, *changes))


@flow(name="distill-file", flow_run_name="distill {settings}")
def distill_file(
    settings: Annotated[str, _OneOfTheFiles()] = "configs/quickstart.yaml",
    name: str = "",
    questions: str = "",
    teacher: str = "",
    student: str = "",
    num_samples: int | None = None,
    changes: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Distil a teacher into a student with a file of settings.

    Args:
        settings: File of settings. The list has the files of `configs/` and of your `data/` at the
            time of the last `qcrd up` or `qcrd deploy`. The file is read when the run starts.
        name: Name of the run and of the student. Empty: the file's, as for the next four.
        questions: A shipped data set, or the path of a YAML data-set file of your own.
        teacher: Hub name or folder of the teacher.
        student: Hub name or folder of the student.
        num_samples: Rationales per question.
        changes: Further settings, one `key=value` each: `training.num_rounds=20`. `qcrd settings`
            lists them.

    Returns:
        The run's result: chosen round, validation accuracy, test numbers.
    """
    show_core_logs()
    config = chosen_config(
        settings,
        name=name,
        questions=questions,
        teacher=teacher,
        student=student,
        num_samples=num_samples,
        changes=changes,
    )
    return dict(run_stages(prepare_run(config)).result)
