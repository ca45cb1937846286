"""The flow `distill`: from questions and a teacher to an evaluated student.

    questions -> sample teacher -> vote -> tokenizers
    round t:  negatives of student t - j -> scores -> train -> validate
    best round -> test -> report

Started again with the same configuration, also after a kill, it continues where it stopped.
Source: arXiv 2405.13014, algorithm and figure 2.
"""

from typing import Any

from prefect import flow

from flows.logs import show_core_logs
from qcrd_core.config import RunConfig
from qcrd_core.hosts import check_hosts
from qcrd_core.locks import run_lock
from tasks.rounds import finish, sample_negatives, score_rationales, train_round, validate
from tasks.teacher import check_student, make_tokenizers, prepare_run, sample_teacher, vote


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
    with run_lock(config, run_id):
        sample_and_vote(config, run_id)
        return train_and_report(config, run_id)


def sample_and_vote(config: RunConfig, run_id: str) -> dict[str, float | None]:
    """The first half of a run, which asks the teacher; the caller holds the run's lock.

    Args:
        config: The run's configuration.
        run_id: From `prepare_run`.

    Returns:
        The vote's counts.
    """
    check_student(config, run_id)
    sample_teacher(config, run_id)
    return vote(config, run_id)


def train_and_report(config: RunConfig, run_id: str) -> dict[str, Any]:
    """The second half of a run, which trains; the caller holds the run's lock.

    Args:
        config: The run's configuration.
        run_id: A run that `sample_and_vote` brought to its vote.

    Returns:
        The run's result.
    """
    make_tokenizers(config, run_id)
    for round_ in range(config.training.num_rounds):
        sample_negatives(config, run_id, round_)
        score_rationales(config, run_id, round_)
        train_round(config, run_id, round_)
        validate(config, run_id, round_)
    return finish(config, run_id)
