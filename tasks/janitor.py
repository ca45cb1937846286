"""Task of the flow `janitor`."""

from pathlib import Path
from typing import Any

from qcrd_core.ops.janitor import Retention, find_waste, megabytes, remove
from qcrd_core.store.store import Store
from tasks.artifacts import waste_artifact
from tasks.stage import stage


@stage("Tidy up", retries=0)
def tidy_up(store: str, scratch: Path, retention: Retention, *, delete: bool) -> dict[str, Any]:
    """Find old runs, unused samples and leftovers, and delete them if `delete` is set.

    Reads: the whole store. Writes: nothing, but deletes folders.
    """
    opened = Store(store, scratch)
    waste = find_waste(opened, scratch, retention)
    size = megabytes(sum(item.num_bytes for item in waste))
    summary = f"{len(waste)} items, {size}: {'deleted' if delete else 'not deleted, only listed'}"
    waste_artifact(waste, summary)
    num_bytes = remove(opened, waste) if delete else 0
    return {"num_found": len(waste), "num_bytes_removed": num_bytes}
