"""Steps of `prefect deploy`: settings from a file of configs/, and a schedule as it was switched.

    build:
      - flows.server.presets.read_preset: {id: preset, path: configs/svamp.yaml}
      - flows.server.presets.keep_schedule: {id: schedule, deployment: flow/name, slug: nightly}
    parameters: {config: "{{ preset.config }}"}
    schedules:
      - {slug: nightly, cron: "30 2 * * *", timezone: UTC, active: "{{ schedule.active }}"}

So a preset is written once, in configs/, and the run form in the UI opens with all of its values.
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
        path: YAML file, from the repository's root.
        of: What it configures. A bench comes with the settings of the run that it names.

    Returns:
        `config`: the file's own settings; what it leaves out stays a default of the form.

    Raises:
        ConfigError: If the file is absent or breaks a rule.
    """
    settings = load_bench(Path(path)) if of == "bench" else load_config(Path(path))
    return {"config": settings.model_dump(mode="json", exclude_unset=True)}


def keep_schedule(deployment: str, slug: str) -> dict[str, bool]:
    """Say whether a schedule is on: as the server has it, off where it is new.

    `active: false` in prefect.yaml would switch it off again whenever the file is applied, and
    without a word a newcomer's machine would begin to train at night.

    Args:
        deployment: Flow and deployment, `flow/name`.
        slug: Name of the schedule.

    Returns:
        `active`.
    """
    with get_client(sync_client=True) as client:
        try:
            schedules = client.read_deployment_by_name(deployment).schedules
        except ObjectNotFound:
            return {"active": False}
    return {"active": any(one.active for one in schedules if one.slug == slug)}
