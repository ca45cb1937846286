"""The flow `distill`: from questions and a teacher to an evaluated student.

    questions -> sample teacher -> vote -> tokenizers
    round t:  negatives of student t - j -> scores -> train -> validate
              with `run.ray_address` written on another worker, beside rounds t - j + 1 ... t - 1
    best round -> test -> report

Started again with the same configuration, also after a kill, it continues where it stopped.
Source: arXiv 2405.13014, algorithm and figure 2.
"""

from typing import Any

from prefect import flow

from flows.runner import Runner, open_runner
from qcrd_core.config.run import RunConfig
from qcrd_core.run.locks import run_lock, sampling_lock
from qcrd_core.runtime.hosts import check_hosts
from tasks.logs import show_core_logs
from tasks.rounds import finish, score_rationales, train_round, validate
from tasks.teacher import check_student, make_tokenizers, prepare_run, vote


@flow(name="distill", flow_run_name="distill {config.run.name}")
def distill(config: RunConfig) -> dict[str, Any]:
    """Distil a teacher into a student.

    Args:
        config: The run's configuration.

    Returns:
        The run's result: chosen round, validation accuracy, test numbers.
    """
    show_core_logs()
    run_id = prepare_run(config)
    return run_stages(config, run_id)


def run_stages(config: RunConfig, run_id: str) -> dict[str, Any]:
    """Bring a prepared run to its end, as a part of whichever flow calls it.

    Args:
        config: The run's configuration.
        run_id: From `prepare_run`.

    Returns:
        The run's result.
    """
    check_hosts(config.training.hosts)
    with run_lock(config, run_id), open_runner(config, run_id) as runner:
        sample_and_vote(config, run_id, runner)
        return train_and_report(config, run_id, runner)


def sample_and_vote(config: RunConfig, run_id: str, runner: Runner) -> dict[str, float | None]:
    """The first half of a run, which asks the teacher; several processes may be in it at once.

    Args:
        config: The run's configuration.
        run_id: From `prepare_run`.
        runner: Where the teacher is sampled.

    Returns:
        The vote's counts.
    """
    with sampling_lock(config, run_id):
        check_student(config, run_id)
        runner.sample_teacher()
        return vote(config, run_id)


def train_and_report(config: RunConfig, run_id: str, runner: Runner) -> dict[str, Any]:
    """The second half of a run, which trains; the caller holds the run's lock.

    Args:
        config: The run's configuration.
        run_id: A run that `sample_and_vote` brought to its vote.
        runner: Where students write negatives.

    Returns:
        The run's result.
    """
    make_tokenizers(config, run_id)
    for round_ in range(config.training.num_rounds):
        runner.sample_negatives(round_)
        score_rationales(config, run_id, round_)
        train_round(config, run_id, round_)
        runner.begin_negatives(round_)
        validate(config, run_id, round_)
    return finish(config, run_id)
