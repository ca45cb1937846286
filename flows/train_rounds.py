"""The flow `train-rounds`: the second half of `distill`, on the machine that trains.

    round t:  negatives of student t - j -> scores -> train -> validate
    best round -> test -> report

It does not ask the teacher: run `sample-teacher` with the same configuration first.
"""

from typing import Any

from prefect import flow

from flows.distill import train_and_report
from flows.runner import open_runner
from qcrd_core.config.run import RunConfig
from qcrd_core.run.locks import run_lock
from qcrd_core.runtime.hosts import check_hosts
from tasks.logs import show_core_logs
from tasks.teacher import check_votes, prepare_run


@flow(name="train-rounds", flow_run_name="train rounds of {config.run.name}")
def train_rounds(config: RunConfig) -> dict[str, Any]:
    """Train on the rationales that the store holds, evaluate and report.

    Args:
        config: The run's configuration.

    Returns:
        The run's result: chosen round, validation accuracy, test numbers.
    """
    show_core_logs()
    check_hosts(config.training.hosts)
    run = prepare_run(config)
    with run_lock(config, run.run_id), open_runner(run) as runner:
        return dict(train_and_report(check_votes(run), runner).result)
