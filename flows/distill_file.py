"""The flow `distill-file`: `distill` with the settings of a file, for a form of one screen.

The form of `distill` has a field for every setting. People keep their settings in files, as
`qcrd run` reads them, and change few of them from run to run.
"""

import json
from pathlib import Path
from typing import Any

from prefect import flow

from flows.distill import run_stages
from flows.settings_files import SettingsFile
from qcrd_core.config.run import RunConfig, load_config
from tasks.logs import show_core_logs
from tasks.teacher import prepare_run


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
    settings: SettingsFile = "configs/quickstart.yaml",
    name: str = "",
    questions: str = "",
    teacher: str = "",
    student: str = "",
    num_samples: int | None = None,
    changes: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Distil a teacher into a student with a file of settings.

    Args:
        settings: File of settings. The list has those in this folder, `configs/` and `data/` at the
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
