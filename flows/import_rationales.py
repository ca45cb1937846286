"""The flow `import-rationales`: bring rationales that a teacher wrote elsewhere into the store.

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
    """Import rationales that a teacher wrote elsewhere, to distil them without sampling.

    Importing the same file again replaces its generation in the store.

    Args:
        file: JSON lines, JSON array, CSV, TSV or Parquet file on the worker's machine, or a pattern
            such as `train_*.json` for the parts of one.
        store: Folder or object-store URL of the store.
        dataset: Name of a shipped data set, or path of a YAML data-set file. It says how answers
            are read.
        format: Layout of the file. plain: the columns named below. dss: Distilling Step-by-Step's
            JSON array of outputs, together with `questions`, or rows with teacher_output. mcc-kd:
            question or instruction, label, and rationales or output. distilabel: instruction, and
            generation or generations. Columns named below override those of the format.
        questions: Only for dss: the data set's own file, in the same order as the outputs.
        columns: Names of the file's columns, if they differ from the format's.
        split: The split that the file's questions belong to.
        model: The model that wrote the rationales. If not given: the model that the file names, or
            `unknown`.

    Returns:
        Counts, and the generation to name under `teacher.model` in a configuration.
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
