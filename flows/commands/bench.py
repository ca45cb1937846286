"""The command `qcrd bench`: compare methods over seeds, or ask which one to use.

qcrd bench --config configs/bench_steps.yaml [section.key=value ...] [--publish docs]
qcrd bench --recommend RUN.yaml
"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.commands.run import program, start_server
from qcrd_core.errors import ConfigError

if TYPE_CHECKING:
    from qcrd_core.bench.config import BenchConfig
    from qcrd_core.run.context import RunContext


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
    command = shlex.join([program(), "bench", *source, *overrides])
    if dry_run:
        print(f"\nNothing was started or written. To run it:\n{command}")
        return
    print(f"\nIf this is stopped, the same command continues it:\n{command}\n", flush=True)
    if publish is not None:
        _take_over(settings, plan.context, publish)
    server = start_server()
    from flows.bench import benchmark

    with server.used():
        benchmark(settings)
    _show_bench(settings, plan.context, publish, is_asked=recommend is not None)


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
