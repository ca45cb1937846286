"""The commands `qcrd run` and `qcrd join`: distil, on one host or several.

qcrd run --config configs/quickstart.yaml [section.key=value ...] [--dry-run] [--retry-failed]
qcrd join --config FILE [section.key=value ...]
"""

import logging
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from flows.server.temporary import TemporaryServer
    from qcrd_core.config.run import RunConfig
    from qcrd_core.stages.plan import RunPlan


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
    server = None if dry_run else start_server()
    from qcrd_core.stages.describe import describe_plan, describe_prompt
    from qcrd_core.stages.plan import plan_run

    plan = plan_run(settings)
    if retry_failed:
        plan = _retry_failed(plan, dry_run=dry_run)
    command = shlex.join([program(), "run", "--config", str(config), *overrides])
    print(describe_plan(plan))
    if server is None:
        prompts = [each.first_prompt for each in plan.teachers if each.first_prompt is not None]
        for place, prompt in enumerate(prompts):
            if prompt not in prompts[:place]:
                whose = "" if len(plan.teachers) == 1 else f" of teacher {place + 1}"
                print(f"\nThe first prompt{whose}:\n\n{describe_prompt(prompt)}")
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


def start_server() -> "TemporaryServer":
    """Start Prefect's temporary server, unless PREFECT_API_URL names one."""
    from flows.server.temporary import TemporaryServer

    return TemporaryServer.start()


def _show_result(settings: "RunConfig", run_id: str) -> None:
    from qcrd_core.report.terminal import terminal_summary
    from qcrd_core.run.context import RunContext

    context = RunContext.open(settings, run_id)
    print(f"\n{terminal_summary(context.store, run_id)}\n")
    student = context.store.url(context.paths.best_student)
    print("Let the student answer your own questions, one JSON object per line:")
    print(f"{program()} predict {shlex.quote(student)} FILE.jsonl")


def program() -> str:
    """How to call this program here: by its name if that is on the PATH, else by its path."""
    path = sys.argv[0]
    return "qcrd" if shutil.which("qcrd") in (path, os.path.realpath(path)) else path
