"""The flow `janitor`: list or delete old runs, unused samples and leftovers of a store.

`qcrd janitor` does the same from the command line.
"""

from pathlib import Path
from typing import Any

from prefect import flow

from qcrd_core.ops.janitor import Retention
from tasks.janitor import tidy_up
from tasks.logs import show_core_logs


@flow(name="janitor", flow_run_name="janitor of {store}")
def janitor(
    store: str,
    retention: Retention = Retention(),  # noqa: B008 (frozen, and the form's default)
    scratch: Path = Path(".qcrd/scratch"),
    delete: bool = False,
) -> dict[str, Any]:
    """Find old runs, students that were never champion, unused samples and leftovers.

    Args:
        store: Folder or object-store URL of the store.
        retention: What must stay.
        scratch: Local folder of logs and copies, as in the runs' setting `run.scratch`.
        delete: Delete what was found. Otherwise it is only listed.

    Returns:
        Number of items found, and bytes deleted.
    """
    show_core_logs()
    return tidy_up(store, scratch, retention, delete=delete)
