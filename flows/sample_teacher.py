"""The flow `sample-teacher`: the first half of `distill`, on the machine that has the teacher.

questions -> sample teacher -> vote (-> condense)

Several workers may run it at once with the same settings, even while `distill` runs: they divide
the shards through the store.
"""

from prefect import flow

from flows.distill import sample_and_vote
from flows.runner import open_runner
from qcrd_core.config.run import RunConfig
from tasks.logs import show_core_logs
from tasks.teacher import prepare_run


@flow(name="sample-teacher", flow_run_name="sample teacher for {config.run.name}")
def sample_teacher(config: RunConfig) -> dict[str, float | None]:
    """Sample what the store lacks, vote and condense. `train-rounds` or `distill` continue.

    Args:
        config: The run's configuration.

    Returns:
        Counts of the vote and of condensing.
    """
    show_core_logs()
    run = prepare_run(config)
    with open_runner(run) as runner:
        return dict(sample_and_vote(run, runner).counts)
