"""The flow `import-rationales`: rationales that a teacher wrote elsewhere come into the store.

`qcrd import` does the same from the command line.
"""

from typing import Any, Literal

from prefect import flow

from flows.logs import show_core_logs
from qcrd_core.datasets.importing import ImportColumns
from tasks.importing import import_file


@flow(name="import-rationales", flow_run_name="import {file} for {dataset}")
def import_rationales(
    file: str,
    store: str,
    dataset: str,
    columns: ImportColumns,
    split: Literal["train", "validation", "test"] = "train",
    model: str = "unknown",
) -> dict[str, Any]:
    """Bring in rationales that a teacher wrote elsewhere, to distil them without sampling.

    The same file imported again gives the same generation and replaces it.

    Args:
        file: JSON lines, JSON array, CSV or Parquet on the worker's machine.
        store: Folder or object-store URL of the store.
        dataset: Name of a shipped data set, or path of a YAML data-set file: how answers are read.
        columns: Names of the file's columns.
        split: Split of the file's questions.
        model: Who wrote the rationales, for the tables.

    Returns:
        Counts, and the generation that `teacher.model` of a configuration takes.
    """
    show_core_logs()
    return import_file(
        file, store=store, dataset=dataset, columns=columns, split=split, model=model
    )
