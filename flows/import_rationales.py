"""The flow `import-rationales`: rationales that a teacher wrote elsewhere come into the store.

`qcrd import` does the same from the command line.
"""

from typing import Any, Literal

from prefect import flow

from qcrd_core.data.formats import Format
from qcrd_core.data.importing import ImportColumns
from tasks.importing import import_file
from tasks.logs import show_core_logs


@flow(name="import-rationales", flow_run_name="import {file} for {dataset}")
def import_rationales(
    file: str,
    store: str,
    dataset: str,
    format: Format = "plain",
    questions: str | None = None,
    columns: ImportColumns = ImportColumns(),  # noqa: B008 - frozen
    split: Literal["train", "validation", "test"] = "train",
    model: str | None = None,
) -> dict[str, Any]:
    """Bring in rationales that a teacher wrote elsewhere, to distil them without sampling.

    The same file imported again gives the same generation and replaces it.

    Args:
        file: JSON lines, JSON array, CSV or Parquet on the worker's machine.
        store: Folder or object-store URL of the store.
        dataset: Name of a shipped data set, or path of a YAML data-set file: how answers are read.
        format: dss: Distilling Step-by-Step's JSON array of outputs, with `questions`; or rows with
            teacher_output. mcc-kd: question, label and rationales. distilabel: instruction and
            generation or generations. plain: the columns named below. Named columns always count.
        questions: For dss: the data set's own file, in the order of the outputs.
        columns: Names of the file's columns, where they are not the format's.
        split: Split of the file's questions.
        model: Who wrote the rationales. Without it, what the file says, or `unknown`.

    Returns:
        Counts, and the generation that `teacher.model` of a configuration takes.
    """
    show_core_logs()
    return import_file(
        file,
        store=store,
        dataset=dataset,
        columns=columns,
        form=format,
        questions=questions,
        split=split,
        model=model,
    )
