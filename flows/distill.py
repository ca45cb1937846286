"""The flow `distill`: from questions and a teacher to an evaluated student.

    questions -> sample teacher -> vote (-> condense) -> tokenizers
    round t:  negatives of student t - j -> scores -> train -> validate
    best round -> test -> report

When started again with the same configuration, even after a kill, it continues where it stopped.
Source: arXiv 2405.13014, algorithm and figure 2.
"""

from typing import Any

from prefect import flow

from flows.runner import Runner, open_runner
from qcrd_core.config.run import RunConfig
from qcrd_core.run.locks import run_lock, sampling_lock
from qcrd_core.runtime.hosts import check_hosts
from qcrd_core.stages.rounds import negatives_checkpoint
from tasks.logs import show_core_logs
from tasks.references import Checkpoint, Run, Student, Validation, Votes
from tasks.rounds import finish, score_rationales, train_round, validate
from tasks.teacher import check_student, condense, make_tokenizers, prepare_run, vote


@flow(name="distill", flow_run_name="distill {config.run.name}")
def distill(config: RunConfig) -> dict[str, Any]:
    """Distil a teacher into a student.

    Args:
        config: The run's configuration.

    Returns:
        The run's result: chosen round, validation accuracy, test numbers.
    """
    show_core_logs()
    return dict(run_stages(prepare_run(config)).result)


def run_stages(run: Run) -> Student:
    """Carry out a prepared run, inside whichever flow calls this.

    Args:
        run: From `prepare_run`.

    Returns:
        The tested and published student.
    """
    check_hosts(run.config.training.hosts)
    with run_lock(run.config, run.run_id), open_runner(run) as runner:
        return train_and_report(sample_and_vote(run, runner), runner)


def sample_and_vote(run: Run, runner: Runner) -> Votes:
    """Sample the teacher, vote and condense: the first half of a run.

    Several processes may do this at once for the same run.

    Args:
        run: From `prepare_run`.
        runner: Where the teacher is sampled.

    Returns:
        The vote, after `teacher.condense` if it is set.
    """
    with sampling_lock(run.config, run.run_id):
        checked = check_student(run)
        rationales = runner.sample_teacher(checked)
        votes = vote(rationales)
        return votes if run.config.teacher.condense is None else condense(votes)


def train_and_report(votes: Votes, runner: Runner) -> Student:
    """Train in rounds, choose the best round and report: the second half of a run.

    The caller must hold the run's lock.

    Args:
        votes: From `sample_and_vote`.
        runner: Where students write negatives.

    Returns:
        The tested and published student.
    """
    checkpoint, scores = make_tokenizers(votes), None
    checkpoints: list[Checkpoint] = []
    validations: list[Validation] = []
    for round_ in range(votes.config.training.num_rounds):
        source = negatives_checkpoint(votes.config.negatives, round_)  # t - j
        negatives = None
        if source is not None:
            negatives = runner.sample_negatives(checkpoints[source], round_)
        scores = score_rationales(round_, votes, negatives, discriminator=scores)
        checkpoint = train_round(scores, checkpoint)
        checkpoints.append(checkpoint)
        runner.begin_negatives(checkpoint)
        validations.append(validate(checkpoint))
    return finish(validations)
