"""The commands `qcrd inspect`, `qcrd validate`, `qcrd compact`, `qcrd plan`: what is in a store.

qcrd inspect .qcrd/quickstart                          a store in numbers
qcrd inspect .qcrd/quickstart/runs/ID --question ID    all of one question
qcrd inspect .qcrd/quickstart/runs/ID --where "agreement < 0.5 AND is_correct"
qcrd inspect .qcrd/quickstart --diff RUN_A RUN_B       what changed between two nights
"""

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from qcrd_core.errors import ConfigError, DataError


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
        if limit < 1:
            msg = f"--limit must be at least 1; got {limit}."
            raise ConfigError(msg)
        print(terminal.found_text(find_rows(view, where, limit=limit)))
    else:
        print(terminal.summary_text(summarize(view)))
        if view.run_id is None:
            print("\nRuns: " + (", ".join(view.run_ids) or "none"))
            for run_id in view.run_ids[-1:]:
                print("qcrd inspect " + shlex.quote(view.store.url(f"runs/{run_id}")))


def validate(store: str, *, repair: bool = False) -> None:
    """Check a whole store: schema, keys, orphans, hashes, parts against their generation.

    Ends with 1 where something is found that was not repaired.

    Args:
        store: Folder or URL of the store.
        repair: Delete temporaries that killed processes left, and move damaged parts of generations
            to `quarantine/`: the next run makes their rows again.
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
        print(
            "\nEverything is as it should be." if not repaired else "\nThe rest is as it should be."
        )
        return
    if not repair and any(finding.repair for finding in left):
        print(f"\nqcrd validate {shlex.quote(store)} --repair")
    msg = f"A store must have no findings; got {len(left)} ({opened}). They stand above."
    raise DataError(msg)


def compact(store: str) -> None:
    """Join the small parts of a store's generations into large ones.

    A run does so itself where it leaves many.

    Args:
        store: Folder or URL of the store.
    """
    from qcrd_core.inspect.view import open_view
    from qcrd_core.progress import progress
    from qcrd_core.store.compact import compact as join_parts

    view = open_view(store)
    total = sum(view.generation_folder(each).num_rows for each in view.generations)
    with progress("Compact", total, "rows") as bar:
        done = [join_parts(view.store, each.folder, bar) for each in view.generations]
    before, after = (sum(getattr(one, n) for one in done) for n in ("num_before", "num_after"))
    print(f"  parts       {before:,}, now {after:,}")
    print(f"  rows twice  {sum(one.num_twice for one in done):,}, now once")
    print(f"\nqcrd inspect {shlex.quote(store)}")


def plan(
    *overrides: str,
    config: Annotated[Path, Parameter(name=["--config", "-c"])],
    questions: int,
    gpus: int,
    gpu_hour_price: float = 0.0,
) -> None:
    """Say what many questions would take, from what past runs of the store measured. Reads only.

    Args:
        overrides: Settings on top of the file, for example teacher.num_samples=4.
        config: YAML file of settings; see configs/.
        questions: Training questions.
        gpus: GPUs that sample the teacher.
        gpu_hour_price: Price of a GPU-hour; by default budget.gpu_hour_price.
    """
    from qcrd_core.config.run import load_config
    from qcrd_core.ops.estimate import describe_forecast, forecast

    found = forecast(
        load_config(config, overrides),
        num_questions=questions,
        num_gpus=gpus,
        gpu_hour_price=gpu_hour_price,
    )
    print(describe_forecast(found))
    print("\n" + shlex.join(["qcrd", "run", "--config", str(config), *overrides, "--dry-run"]))


def explore(store: str, *, port: int = 8400, host: str = "127.0.0.1") -> None:
    """Show every rationale of a store in a browser; Ctrl-C ends it.

    Only this machine can reach it. Nothing is changed but the marks of curators, which the next run
    follows.

    Args:
        store: Folder or URL of the store.
        port: Port of the pages.
        host: Where to listen. Another one than the loopback is for a container whose port is
            published on the loopback; the pages answer to 127.0.0.1 and localhost alone.
    """
    from explorer.app import serve

    scratch = Path(".qcrd/scratch")
    serve(store, address=(host, port), scratch=scratch, said=lambda url: print(url, flush=True))


def audit(target: str, *, generation: str | None = None) -> None:
    """Check whether rationales can be trusted: vote against gold, K, duplicates, leaked tests.

    Writes audit.html beside the run or the generation.

    Args:
        target: `<store>/runs/<run id>`, or a store.
        generation: Which generation of a store, where it has several.
    """
    from qcrd_core.inspect.audit.audit import audit as check
    from qcrd_core.inspect.audit.page import audit_text, write_audit
    from qcrd_core.inspect.view import open_view

    view = open_view(target)
    found = check(view, generation)
    print(audit_text(found))
    print(f"\n{view.store.shown(write_audit(view, found))}")
