"""The flow `benchmark`: methods x seeds x shares of the data, each cell a run of `distill`.

If a cell fails, its row holds the error and the other cells go on. When the flow is started again,
complete cells are read from the store instead of run. If it is started several times at once on one
machine, each start takes cells that no other start has taken.
"""

import logging
import time
from collections import deque
from collections.abc import Mapping

from prefect import flow

from flows.distill import distill
from qcrd_core.bench.cells import CellResult, bench_folder, failed, find, stored
from qcrd_core.bench.config import BenchConfig, Cell
from qcrd_core.runtime.lock import lock
from qcrd_core.stages.plan import plan_run
from tasks.bench import publish
from tasks.logs import show_core_logs

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 5.0
"""Pause before looking again when other processes are running all remaining cells."""


@flow(name="benchmark", flow_run_name="benchmark {config.name}")
def benchmark(config: BenchConfig) -> None:
    """Compare methods on the same rationales, steps and seeds.

    Args:
        config: Methods, seeds, shares of the data, and the run settings they have in common.
    """
    show_core_logs()
    plan = plan_run(config.run_config(config.methods[0], config.seeds[0]))
    cells = list(config.cells(plan.split("train").height))
    known = stored(plan.context.store, bench_folder(config))
    claims = plan.context.config.run.scratch / "bench" / config.name
    results: dict[int, CellResult] = {}
    queue, num_taken = deque(enumerate(cells)), 0
    while queue:
        number, cell = queue.popleft()
        with lock(claims / f"{number}.lock", wait=False) as is_mine:
            if is_mine:
                logger.info("Cell %d of %d | %s", number + 1, len(cells), cell.name)
                results[number] = _run(config, cell, known)
        if is_mine:
            num_taken = 0
            publish(config, [results[number] for number in sorted(results)])
            continue
        # Another process runs this cell. Its numbers are read once that process is done.
        queue.append((number, cell))
        num_taken += 1
        if num_taken >= len(queue):
            time.sleep(_WAIT_SECONDS)
            num_taken = 0


def _run(config: BenchConfig, cell: Cell, known: Mapping[str, CellResult]) -> CellResult:
    try:
        found = find(config, cell, known)
        if found is None:
            distill(cell.config)
            found = find(config, cell, known)
    except Exception as error:  # noqa: BLE001  (a cell is a row, whatever happened to it)
        logger.warning("%s failed: %s", cell.name, error)
        return failed(config, cell, f"{type(error).__name__}: {error}")
    assert found is not None  # distill returned
    return found
