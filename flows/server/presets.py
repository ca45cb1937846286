"""Steps of `prefect deploy`: read settings from configs/, and leave schedules on or off.

    build:
      - flows.server.presets.read_preset: {id: preset, path: configs/svamp.yaml}
      - flows.server.presets.keep_schedule: {id: schedule, deployment: flow/name, slug: nightly}
    parameters: {config: "{{ preset.config }}"}
    schedules:
      - {slug: nightly, cron: "30 2 * * *", timezone: UTC, active: "{{ schedule.active }}"}

A preset is thus written once, in configs/, and the run form in the UI opens with all its values.
"""

from pathlib import Path
from typing import Any, Literal

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from qcrd_core.bench.config import load_bench
from qcrd_core.config.run import load_config


def read_preset(path: str, of: Literal["run", "bench"] = "run") -> dict[str, Any]:
    """Read a file of settings and check it, so that no deployment carries a broken preset.

    Args:
        path: YAML file, relative to the repository's root.
        of: What the file configures. For a bench, the settings of the run that it names are read
            too.

    Returns:
        `config`: the file's settings. The form shows defaults for the rest.

    Raises:
        ConfigError: If the file is absent or a setting is wrong.
    """
    settings = load_bench(Path(path)) if of == "bench" else load_config(Path(path))
    return {"config": settings.model_dump(mode="json", exclude_unset=True)}


def keep_schedule(deployment: str, slug: str) -> dict[str, bool]:
    """Read from the server whether a schedule is on. A new schedule is off.

    `active: false` in prefect.yaml would switch it off whenever the file is applied. Without
    `active`, a newcomer's machine would begin to train at night.

    Args:
        deployment: Flow and deployment, `flow/name`.
        slug: Name of the schedule.

    Returns:
        `active`: whether the schedule is on.
    """
    with get_client(sync_client=True) as client:
        try:
            schedules = client.read_deployment_by_name(deployment).schedules
        except ObjectNotFound:
            return {"active": False}
    return {"active": any(one.active for one in schedules if one.slug == slug)}
