"""The commands `qcrd inspect`, `qcrd validate` and `qcrd compact`: what is in a store.

qcrd inspect .qcrd/quickstart                          a store in numbers
qcrd inspect .qcrd/quickstart/runs/ID --question ID    all of one question
qcrd inspect .qcrd/quickstart/runs/ID --where "agreement < 0.5 AND is_correct"
qcrd inspect .qcrd/quickstart --diff RUN_A RUN_B       what changed between two nights
"""

import shlex
from pathlib import Path

from qcrd_core.errors import ConfigError


def inspect(
    target: str,
    *,
    question: str | None = None,
    where: str | None = None,
    diff: tuple[str, str] | None = None,
    export: Path | None = None,
    limit: int = 20,
) -> None:
    """Show what a store or a run holds. Reads only.

    Args:
        target: Folder or URL of a store, or of a run in it, `<store>/runs/<run id>`.
        question: All that is known of this question id: samples, vote, scores, answers, prompt.
        where: Rows that satisfy a SQL condition, for example "agreement < 0.5 AND is_correct".
        diff: Two run ids of the store: what changed from the first to the second.
        export: Write the rows: a .jsonl, .csv or .parquet file, or the folder of a Hugging Face
            data set. With --where only those rows.
        limit: Most rows that --where shows.
    """
    from qcrd_core.inspect import terminal
    from qcrd_core.inspect.compare import compare_runs
    from qcrd_core.inspect.export import export_rows
    from qcrd_core.inspect.find import find_rows
    from qcrd_core.inspect.question import read_question
    from qcrd_core.inspect.summary import summarize
    from qcrd_core.inspect.view import open_view

    view, root = open_view(target), target.rstrip("/")
    if diff is not None:
        runs = [open_view(f"{root}/runs/{run_id}") for run_id in diff]
        print(terminal.difference_text(compare_runs(runs[0], runs[1])))
    elif export is not None:
        print(f"  rows written  {export_rows(view, export, where):,}")
        print(f"\nls -l {shlex.quote(str(export))}")
    elif question is not None:
        print(terminal.question_text(read_question(view, question)))
    elif where is not None:
        if limit < 1:
            msg = f"--limit must be at least 1; got {limit}."
            raise ConfigError(msg)
        print(terminal.found_text(find_rows(view, where, limit=limit)))
    else:
        print(terminal.summary_text(summarize(view)))
        if view.run_id is None:
            print("\nRuns: " + (", ".join(view.run_ids) or "none"))
            for run_id in view.run_ids[-1:]:
                print("qcrd inspect " + shlex.quote(f"{root}/runs/{run_id}"))
