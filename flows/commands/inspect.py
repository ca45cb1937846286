"""The commands that read a store: inspect, validate, compact, plan, explore, audit.

qcrd inspect .qcrd/quickstart                          a store in numbers
qcrd inspect .qcrd/quickstart/runs/ID --question ID    everything about one question
qcrd inspect .qcrd/quickstart/runs/ID --where "agreement < 0.5 AND is_correct"
qcrd inspect .qcrd/quickstart --diff RUN_A RUN_B       what changed between two nights
"""

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.commands.options import NumRows, Port
from qcrd_core.errors import DataError


def inspect(
    target: str,
    *,
    question: str | None = None,
    where: str | None = None,
    diff: tuple[str, str] | None = None,
    export: Path | None = None,
    limit: NumRows = 20,
) -> None:
    """Show what a store or a run holds. Changes nothing.

    Args:
        target: Folder or URL of a store, or of a run in it, `<store>/runs/<run id>`.
        question: Show everything about the question with this id: samples, vote, scores, answers,
            prompt.
        where: Show the rows that meet a SQL condition, for example
            "agreement < 0.5 AND is_correct".
        diff: Show what changed between two runs. Takes two run ids of the store, older one first.
        export: Write the rows to a .jsonl, .csv or .parquet file, or to a new folder as a Hugging
            Face data set. With --where, only the rows that meet the condition.
        limit: Greatest number of rows that --where shows.
    """
    from qcrd_core.inspect import terminal
    from qcrd_core.inspect.compare import compare_runs
    from qcrd_core.inspect.export import export_rows
    from qcrd_core.inspect.find import find_rows
    from qcrd_core.inspect.question import read_question
    from qcrd_core.inspect.summary import summarize
    from qcrd_core.inspect.view import open_view

    view = open_view(target)
    if diff is not None:
        runs = [open_view(view.store.url(f"runs/{run_id}")) for run_id in diff]
        print(terminal.difference_text(compare_runs(runs[0], runs[1])))
    elif export is not None:
        print(f"  rows written  {export_rows(view, export, where):,}")
        print(f"\nls -l {shlex.quote(str(export))}")
    elif question is not None:
        print(terminal.question_text(read_question(view, question)))
    elif where is not None:
        print(terminal.found_text(find_rows(view, where, limit=limit)))
    else:
        print(terminal.summary_text(summarize(view)))
        if view.run_id is None:
            print("\nRuns: " + (", ".join(view.run_ids) or "none"))
            for run_id in view.run_ids[-1:]:
                print("qcrd inspect " + shlex.quote(view.store.url(f"runs/{run_id}")))


def validate(store: str, *, repair: bool = False) -> None:
    """Check a whole store: schemas, keys, missing rows, file hashes, damaged parts.

    Exits with 1 if problems remain.

    Args:
        store: Folder or URL of the store.
        repair: Delete temporary files that killed processes left behind, and move damaged parts of
            generations to `quarantine/`. The next run samples the missing rows again.
    """
    from qcrd_core.inspect import validate as checks
    from qcrd_core.inspect.view import open_view
    from qcrd_core.report.text import visible

    opened = open_view(store).store
    report = checks.validate_store(opened)
    print(f"  parts        {report.num_parts:,} with {report.num_rows:,} rows")
    print(f"  files hashed {report.num_hashed:,}")
    repaired = checks.repair(opened, report.findings) if repair else []
    for finding in report.findings:
        done = f" ({finding.repair}d)" if finding in repaired else ""
        print(visible(f"{finding.path} {finding.problem}{done}."))
    left = [finding for finding in report.findings if finding not in repaired]
    if not left:
        print("\nAll problems are repaired." if repaired else "\nNo problems found.")
        return
    if not repair and any(finding.repair for finding in left):
        print(f"\nqcrd validate {shlex.quote(store)} --repair")
    problems = "1 problem" if len(left) == 1 else f"{len(left)} problems"
    msg = f"{problems} {'left' if repaired else 'found'} in {opened}, listed above."
    raise DataError(msg)


def compact(store: str) -> None:
    """Merge many small Parquet parts of a store into a few large ones.

    A run does this by itself after writing many parts.

    Args:
        store: Folder or URL of the store.
    """
    from qcrd_core.inspect.view import open_view
    from qcrd_core.progress import progress
    from qcrd_core.store.compact import compact as join_parts

    view = open_view(store)
    generations = [*view.generations, *view.rewrites]
    total = sum(view.generation_folder(each).num_rows for each in generations)
    with progress("Compact", total, "rows") as bar:
        done = [join_parts(view.store, each.folder, bar) for each in generations]
    before, after = (sum(getattr(one, n) for one in done) for n in ("num_before", "num_after"))
    print(f"  parts           {before:,}, now {after:,}")
    print(f"  duplicate rows  {sum(one.num_twice for one in done):,} removed")
    print(f"\nqcrd inspect {shlex.quote(store)}")


def plan(
    *overrides: str,
    config: Annotated[Path, Parameter(name=["--config", "-c"])],
    questions: int,
    gpus: int,
    gpu_hour_price: Annotated[float, Parameter(show_default=False)] = 0.0,
) -> None:
    """Estimate time, tokens and cost of a run, from measurements of earlier runs in the store.

    Changes nothing.

    Args:
        overrides: Settings that override the file, for example teacher.num_samples=4.
        config: YAML file of settings. Examples are in configs/.
        questions: Number of training questions.
        gpus: Number of GPUs that sample the teacher.
        gpu_hour_price: Price of a GPU-hour. By default budget.gpu_hour_price.
    """
    from qcrd_core.config.run import load_config
    from qcrd_core.ops.estimate import describe_estimate, estimate

    found = estimate(
        load_config(config, overrides),
        num_questions=questions,
        num_gpus=gpus,
        gpu_hour_price=gpu_hour_price,
    )
    print(describe_estimate(found))
    print("\n" + shlex.join(["qcrd", "run", "--config", str(config), *overrides, "--dry-run"]))


def explore(store: str, *, port: Port = 8400, host: str = "127.0.0.1") -> None:
    """Browse every rationale of a store in a web browser. Stop it with Ctrl-C.

    The pages are reachable only from this machine. They change nothing except curators' marks,
    which the next run follows.

    Args:
        store: Folder or URL of the store.
        port: Port to listen on.
        host: Address to listen on. Change it only inside a container whose port is published on
            the loopback: the pages answer only to the names 127.0.0.1 and localhost.
    """
    from explorer.app import serve

    scratch = Path(".qcrd/scratch")
    serve(store, address=(host, port), scratch=scratch, announce=lambda url: print(url, flush=True))


def audit(target: str, *, generation: str | None = None) -> None:
    """Check whether rationales can be trusted: vote against gold, K, duplicates, leaks.

    Writes audit.html into the folder of the run or the generation.

    Args:
        target: Folder or URL of a run, `<store>/runs/<run id>`, or of a store.
        generation: Which generation of the store to check, if it has several.
    """
    from qcrd_core.inspect.audit.audit import audit as check
    from qcrd_core.inspect.audit.page import audit_text, write_audit
    from qcrd_core.inspect.view import open_view

    view = open_view(target)
    found = check(view, generation)
    print(audit_text(found))
    print(f"\n{view.store.shown(write_audit(view, found))}")
