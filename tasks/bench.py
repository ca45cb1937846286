"""What a bench publishes while it runs and at its end."""

import os
import platform
from collections.abc import Sequence
from importlib import metadata

import polars as pl
from prefect.artifacts import create_markdown_artifact

from data_schemas import BenchCells
from qcrd_core.bench.cells import CellResult, bench_folder
from qcrd_core.bench.config import BenchConfig
from qcrd_core.bench.document import write_results
from qcrd_core.bench.markdown import section
from qcrd_core.bench.results import BenchResults, analyse, describe, with_others, write_bench
from qcrd_core.store.store import Store


def publish(config: BenchConfig, cells: Sequence[CellResult]) -> BenchResults:
    """Write tables, page and plots of the cells finished so far, and show them in the UI.

    Args:
        config: The bench.
        cells: Those of this process, at least one. Those of others are in the tables already.

    Returns:
        The results.

    Raises:
        StoreError: If the store cannot be written.
    """
    run, folder = config.run_config(config.methods[0], config.seeds[0]).run, bench_folder(config)
    store = Store(run.store, run.scratch)
    description = describe(config, _machine())
    rows = pl.DataFrame([cell.row for cell in cells], schema=BenchCells.create_empty().schema)
    answers = pl.concat([cell.answers for cell in cells])
    results = analyse(description, *with_others(store, folder, description, rows, answers))
    write_bench(store, folder, results)
    write_results(store, folder.rpartition("/")[0])
    create_markdown_artifact(section(results), key="bench", description=f"Bench {config.name}")
    return results


def _machine() -> str:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{platform.machine()}, {allowed} of {os.cpu_count()} processors, "
        f"Python {platform.python_version()}, torch {metadata.version('torch')}"
    )
