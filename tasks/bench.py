"""What a bench shows while it runs and at its end."""

from collections.abc import Sequence

from qcrd_core.bench.cells import CellResult, write_tables
from qcrd_core.bench.config import BenchConfig
from qcrd_core.store import Store


def publish(config: BenchConfig, results: Sequence[CellResult]) -> None:
    """Write the tables of all cells so far."""
    run = config.run_config(config.methods[0], config.seeds[0]).run
    write_tables(Store(run.store, run.scratch), config, results)
