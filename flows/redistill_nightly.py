"""The flow `redistill-nightly`: learn from what is new, and keep the better student.

    what is new?  nothing    -> done in seconds
                  something  -> a run of the flow `distill`, sampling only what is missing
                                -> version with model card -> champion or not, with the reasons

When started again after a kill, it continues. Each night is decided only once.
"""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.distill import run_stages
from flows.settings_files import SettingsFile
from qcrd_core.config.run import load_config
from tasks.logs import show_core_logs
from tasks.nightly import decide, look_for_news
from tasks.teacher import prepare_run


@flow(name="redistill-nightly", flow_run_name="redistill {settings}")
def redistill_nightly(
    settings: SettingsFile = "configs/quickstart.yaml",
    changes: tuple[str, ...] = (),
    warm_start: bool = False,
) -> State[dict[str, Any]]:
    """Distil again if there is something new to learn from, and promote a better student.

    Args:
        settings: File of settings, read every night. The list has those in this folder, `configs/`
            and `data/` at the time of the last `qcrd up` or `qcrd deploy`. Its section `promotion`
            holds the rule, `budget` limits what sampling may use.
        changes: Settings in place of the file's, one `key=value` each.
        warm_start: Start from the champion's weights and tokenizer instead of those in `settings`.

    Returns:
        `action` (nothing new, promoted or kept), `version` and `reasons`. The state's message says
        the same, so that the run's page and the notifications show it.
    """
    show_core_logs()
    config = load_config(Path(settings), changes)
    night = look_for_news(config, warm_start=warm_start)
    if not night.is_new:
        nothing = {"action": "nothing new", "version": night.version, "reasons": [night.news]}
        return Completed(message=night.news, data=nothing)
    student = run_stages(prepare_run(night.config))
    result = decide(night, student)
    reasons = " ".join(result["reasons"])
    return Completed(message=f"{result['version']} {result['action']}. {reasons}", data=result)
