"""The command `qcrd`.

    qcrd init FILE [--to DIR]
    qcrd run --config configs/quickstart.yaml [section.key=value ...] [--dry-run]
             [--retry-failed]
    qcrd import FILE --store STORE --dataset NAME [--format F | --rationales COLUMN ...]
    qcrd export-sft RUN FILE.jsonl --trainer trl|llama-factory --kind sft|preference
    qcrd join --config FILE [section.key=value ...]
    qcrd predict STUDENT FILE
    qcrd bench --config BENCH.yaml | --recommend RUN.yaml [section.key=value ...] [--dry-run]
    qcrd models, qcrd promote, qcrd rollback, qcrd janitor
    qcrd inspect STORE_OR_RUN [--question ID | --where SQL | --diff A B | --export PATH]
    qcrd validate STORE [--repair], qcrd compact STORE, qcrd explore STORE
    qcrd audit STORE_OR_RUN
    qcrd settings [KEY] [--dataset]
    qcrd plan --config FILE --questions N --gpus G [--gpu-hour-price PRICE]
    qcrd up, qcrd deploy, qcrd status, qcrd down
    qcrd doctor

Exit codes: 0 done, 1 failed (the message says why), 2 wrong setting or command, 130 interrupted.
The last line of output is the next useful command.
"""

import atexit
import gc
import logging
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, CycloptsError, Group, Parameter

from flows.commands.exchange import export_sft, import_file
from flows.commands.init import init
from flows.commands.inspect import audit, compact, explore, inspect, plan, validate
from flows.commands.models import janitor, models, promote, rollback
from flows.commands.server import deploy, down, status, up
from flows.commands.settings import settings as list_settings
from qcrd_core.errors import ConfigError, QcrdError

if TYPE_CHECKING:
    from flows.server.temporary import TemporaryServer
    from qcrd_core.bench.config import BenchConfig
    from qcrd_core.config.run import RunConfig
    from qcrd_core.run.context import RunContext
    from qcrd_core.stages.plan import RunPlan

app = App(
    name="qcrd",
    help="Distil a large teacher into a small student, and keep every rationale.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)
_RUN, _DATA, _MODELS, _LOOK, _SERVER, _CARE = (
    Group.create_ordered(name)
    for name in ("Run", "Data", "Models", "Look", "Prefect server", "Maintenance")
)
for flag in ("--help", "--version"):
    app[flag].group = "Help"


@app.command(group=_RUN, sort_key=0)
def run(
    *overrides: str,
    config: Annotated[Path, Parameter(name=["--config", "-c"])],
    dry_run: bool = False,
    retry_failed: bool = False,
) -> None:
    """Distil a student: sample the teacher, vote, train in rounds, evaluate, report.

    If it is stopped, run it again with the same settings: it continues where it stopped.

    Args:
        overrides: Settings that override the file, for example teacher.num_samples=4.
        config: YAML file of settings. Examples are in configs/.
        dry_run: Show the plan, the first prompt and the estimated tokens, but start nothing.
        retry_failed: Ask the teacher again for samples that it refused in earlier starts.
    """
    # Imported when needed: `qcrd --help` should not wait for them.
    from qcrd_core.config.run import load_config

    settings = load_config(config, overrides)
    # The server takes longer to start than the plan, so it starts first. If there turns out to be
    # nothing to run, it ends with this process.
    server = None if dry_run else _start_server()
    from qcrd_core.stages.describe import describe_plan, describe_prompt
    from qcrd_core.stages.plan import plan_run

    plan = plan_run(settings)
    if retry_failed:
        plan = _retry_failed(plan, dry_run=dry_run)
    command = shlex.join([_program(), "run", "--config", str(config), *overrides])
    print(describe_plan(plan))
    if server is None:
        if plan.first_prompt is not None:
            print(f"\nThe first prompt:\n\n{describe_prompt(plan.first_prompt)}")
        print(f"\nNothing was started or written. To run it:\n{command}")
        return
    if not plan.is_complete:
        plan.context.store.check_writable()  # report a wrong store before Prefect starts
        print(f"\nIf this is stopped, the same command continues it:\n{command}\n", flush=True)
        from flows.distill import distill

        with server.used():
            distill(settings)
    _show_result(settings, plan.run_id)


def _retry_failed(plan: "RunPlan", *, dry_run: bool) -> "RunPlan":
    """Say what failed and, unless it is a dry run, forget it; returns the plan with it missing."""
    from qcrd_core.stages.plan import plan_run
    from qcrd_core.stages.retrying import describe_failed, forget

    print(f"{describe_failed(plan)}\n")
    if dry_run:
        return plan
    forget(plan)
    return plan_run(plan.context.config)


@app.command(group=_RUN)
def join(*overrides: str, config: Annotated[Path, Parameter(name=["--config", "-c"])]) -> None:
    """Join a run as one more training host.

    Start it on every host in training.hosts except the first, which runs `qcrd run`. It takes part
    in every round that the first host begins, and ends after the last round.

    Args:
        overrides: The same as for `qcrd run` on the first host. Only places may differ, for example
            run.scratch=/local.
        config: The same YAML file of settings as on the first host.
    """
    from qcrd_core.config.run import load_config
    from qcrd_core.training.join import join_rounds

    settings = load_config(config, overrides)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    join_rounds(settings)
    print("All rounds are trained. The first host reports the result and stores it.")


@app.command(group=_RUN)
def bench(
    *overrides: str,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    recommend: Path | None = None,
    publish: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Compare methods over several seeds, on the same rationales.

    If it is stopped, run it again with the same settings: it continues with the missing cells.

    You may start it several times at once on one machine. Each process then takes cells that no
    other process has taken. This pays on a GPU that one small student does not fill, or with one
    GPU per process (CUDA_VISIBLE_DEVICES).

    Args:
        overrides: Settings that override those of the run, for example training.num_rounds=2.
        config: YAML file of a bench. Examples are configs/bench_*.yaml.
        recommend: YAML file of a run, in place of --config: compare the main methods with three
            seeds each on the run's own questions, and recommend one.
        publish: Also copy the results to this folder, for example docs, and write its results.md
            again from all benches under its results/. Cells already published there for the same
            settings, questions and teacher are not run again.
        dry_run: List the cells, but start nothing.
    """
    from qcrd_core.bench.cells import bench_folder, find, stored
    from qcrd_core.bench.config import load_bench
    from qcrd_core.bench.recommend import load_recommending
    from qcrd_core.stages.describe import describe_plan
    from qcrd_core.stages.plan import plan_run
    from qcrd_core.store.store import Store

    if (config is None) == (recommend is None):
        msg = "qcrd bench needs either --config BENCH.yaml or --recommend RUN.yaml."
        raise ConfigError(msg)
    if recommend is not None:
        settings = load_recommending(recommend, overrides)
    else:
        assert config is not None
        settings = load_bench(config, overrides)
    plan = plan_run(settings.run_config(settings.methods[0], settings.seeds[0]))
    cells = list(settings.cells(plan.split("train").height))
    known = stored(plan.context.store, bench_folder(settings))
    if publish is not None:
        known |= stored(
            Store(str(publish), plan.context.config.run.scratch), f"results/{settings.name}"
        )
    num_done = sum(find(settings, cell, known) is not None for cell in cells)
    print(f"{describe_plan(plan)}\n")
    for method in settings.methods:
        print(f"  {method:20} {settings.description(method)}")
    print(f"\n  cells           {len(cells)}, of which {num_done} are done")
    source = ["--config", str(config)] if recommend is None else ["--recommend", str(recommend)]
    command = shlex.join([_program(), "bench", *source, *overrides])
    if dry_run:
        print(f"\nNothing was started or written. To run it:\n{command}")
        return
    print(f"\nIf this is stopped, the same command continues it:\n{command}\n", flush=True)
    if publish is not None:
        _take_over(settings, plan.context, publish)
    server = _start_server()
    from flows.bench import benchmark

    with server.used():
        benchmark(settings)
    _show_bench(settings, plan.context, publish, is_asked=recommend is not None)


def _start_server() -> "TemporaryServer":
    from flows.server.temporary import TemporaryServer

    return TemporaryServer.start()


def _take_over(settings: "BenchConfig", context: "RunContext", publish: Path) -> None:
    """Copy published cells into a store that has none, so that they are not run again."""
    from qcrd_core.bench.cells import bench_folder
    from qcrd_core.bench.results import read_bench, write_bench
    from qcrd_core.store.store import Store

    published = Store(str(publish), context.config.run.scratch)
    here, there = bench_folder(settings), f"results/{settings.name}"
    if published.exists(f"{there}/bench.json") and not context.store.exists(f"{here}/bench.json"):
        write_bench(context.store, here, read_bench(published, there))


def _show_bench(
    settings: "BenchConfig", context: "RunContext", publish: Path | None, *, is_asked: bool
) -> None:
    from qcrd_core.bench.cells import bench_folder
    from qcrd_core.bench.document import write_results
    from qcrd_core.bench.recommend import recommendation
    from qcrd_core.bench.results import read_bench, write_bench
    from qcrd_core.bench.terminal import terminal_table
    from qcrd_core.store.store import Store

    store, page = context.store, "bench.md"
    results = read_bench(store, bench_folder(settings))
    print(f"\n{terminal_table(results)}\n")
    if is_asked:
        print(f"{recommendation(results)}\n")
    if publish is not None:
        store = Store(str(publish), context.config.run.scratch)
        write_bench(store, f"results/{settings.name}", results)
        page = write_results(store, "results")
    print(f"Tables, plots and costs:\n{store}/{page}")


def _show_result(settings: "RunConfig", run_id: str) -> None:
    from qcrd_core.report.terminal import terminal_summary
    from qcrd_core.run.context import RunContext

    context = RunContext.open(settings, run_id)
    print(f"\n{terminal_summary(context.store, run_id)}\n")
    student = context.store.url(context.paths.best_student)
    print("Let the student answer your own questions, one JSON object per line:")
    print(f"{_program()} predict {shlex.quote(student)} FILE.jsonl")


def _program() -> str:
    """How to call this program here: by its name if that is on the PATH, else by its path."""
    path = sys.argv[0]
    return "qcrd" if shutil.which("qcrd") in (path, os.path.realpath(path)) else path


@app.command(group=_MODELS)
def predict(student: str, file: Path, *, output: Path | None = None, batch_size: int = 128) -> None:
    """Answer the questions of a file with a student.

    Args:
        student: Folder or URL of a published student, `<store>/runs/<run id>/student`.
        file: JSON lines, JSON array, CSV or Parquet file with the data set's columns. If it also
            holds the right answers, the accuracy is printed.
        output: New file: .jsonl, .csv or .parquet. By default `<name>.predictions.jsonl`, in
            the folder of the input file.
        batch_size: Number of questions answered at once.
    """
    from qcrd_core.progress import progress
    from qcrd_core.stages.prediction import predict_file

    if not file.name:
        msg = f"FILE must name a file of questions; got {file}."
        raise ConfigError(msg)
    target = output or file.with_name(f"{file.stem}.predictions.jsonl")
    with progress("Answer", total=0, unit="questions") as bar:
        numbers = predict_file(student, file, target, batch_size=batch_size, bar=bar)
    print(f"  questions       {numbers['num_questions']:,}")
    print(f"  without answer  {numbers['num_no_answer']:,}")
    if numbers["accuracy"] is not None:
        print(f"  accuracy        {numbers['accuracy']:.1%}")
    for name, value in numbers.items():  # of sets of labels, or of fields
        if name.endswith("_f1") or name.startswith("accuracy_of_"):
            print(f"  {name.replace('_', ' '):<15} {value:.1%}")
    print(f"\nhead -3 {shlex.quote(str(target))}")


@app.command(group=_CARE)
def doctor(*, store: str = ".qcrd/quickstart") -> None:
    """Check this machine: what is installed, and what will work.

    Args:
        store: Folder or URL of the store whose free disk space is checked.
    """
    from qcrd_core.ops.doctor import examine, format_checks

    print(format_checks(examine(store)))


app.command(import_file, name="import", group=_DATA)
app.command(list_settings, name="settings", group=_RUN)
_COMMANDS: dict[Group, tuple[Callable[..., None], ...]] = {
    _RUN: (plan,),
    _DATA: (init, export_sft),
    _MODELS: (models, promote, rollback),
    _LOOK: (inspect, explore, audit),
    _SERVER: (up, deploy, status, down),
    _CARE: (validate, compact, janitor),
}
for group, commands in _COMMANDS.items():
    for command in commands:
        app.command(command, group=group)


def main() -> None:
    """Run the command line. The module's docstring lists the exit codes."""
    logging.captureWarnings(capture=True)
    # Collecting imported objects at exit would take a third of a second and free nothing useful.
    atexit.register(gc.freeze)
    # Exit normally on SIGTERM, so that exit handlers stop everything this process started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app(sys.argv[1:], exit_on_error=False)
    except (ConfigError, CycloptsError) as error:
        if isinstance(error, ConfigError):  # cyclopts has printed its own
            print(error, file=sys.stderr)
        sys.exit(2)
    except QcrdError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        from qcrd_core.runtime.processes import explain_exhausted

        sentence = explain_exhausted("The command", str(error))
        if sentence is None:
            raise
        print(sentence, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        # Threads still waiting for their last request end later. They must not print below this.
        logging.disable()
        print("Stopped. Finished work is kept; run the same command to continue.", file=sys.stderr)
        sys.exit(130)
