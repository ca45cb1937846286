"""The command `qcrd init`: from a file to a data set and a first run, without writing YAML."""

import shlex
import textwrap
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def init(
    file: Path,
    *,
    to: Annotated[Path, Parameter(name="--to")] = Path(),
    question: str | None = None,
    answer: str | None = None,
) -> None:
    """Look at a file of questions and answers, and write the two YAML files of a first run.

    It writes `<name>.yaml` (the data set) and `run.yaml`, in which each line says why it is so, and
    warns about what will hurt. Existing files are never overwritten.

    Args:
        file: CSV, TSV, JSON lines, JSON array or Parquet file, also packed (.gz, .zst), or a folder
            of them. If its name has `train` in it, the files beside it with `test` and `validation`
            in that place are the other splits. Of a big file only the beginning is read.
        to: Folder for the two files.
        question: Column of the questions. By default it is found by name and content.
        answer: Column of the right answers. By default it is found in the same way.
    """
    from qcrd_core.data.guess.draft import draft_dataset
    from qcrd_core.data.guess.write import counts, write_files

    draft = draft_dataset(file, question=question, answer=answer)
    dataset, run = write_files(draft, to)
    found, spec = draft.found, draft.spec
    read = f"{draft.num_rows:,} rows" + ("" if draft.is_whole else " looked at, the file has more")
    print(f"  file       {file}: {read}")
    print(f"  questions  {' and '.join(found.parts)} ({found.reasons['question']})")
    print(f"  answers    {found.answer} ({found.reasons['answer']})")
    print(f"  kind       {spec.answer.kind}: {draft.kind.reason}")
    print(f"  split      {counts(draft)}")
    if found.unused:
        print(f"  not read   {', '.join(found.unused)}")
    for warning in draft.warnings:
        print(
            textwrap.fill(warning, 98, initial_indent="  warning    ", subsequent_indent=" " * 13)
        )
    print(f"\nWritten: {dataset}, {run}. Look at the plan and the first prompt:")
    print(f"qcrd run --config {shlex.quote(str(run))} --dry-run")
