"""Tasks before the first round: prepare the run, sample the teacher, vote.

A task takes the configuration and the run's name and returns small references and counts. What is
done already is decided by the store, not by Prefect's cache: every task may be started again.
"""

from typing import Any

from qcrd_core.config.run import RunConfig
from qcrd_core.run.context import RunContext
from qcrd_core.stages import plan, rounds, sampling, voting
from tasks.artifacts import progress_artifact, vote_artifacts
from tasks.stage import stage


@stage("Prepare run", retries=0)
def prepare_run(config: RunConfig) -> str:
    """Check the configuration and open the run's folder; return its name.

    Writes: config.yaml, dataset.json, table `questions`, environment.json.
    """
    planned = plan.plan_run(config)
    if not planned.is_complete:
        plan.begin_run(planned)
    return planned.run_id


@stage("Check student")
def check_student(config: RunConfig, run_id: str) -> dict[str, Any]:
    """Refuse a student or questions that training would fail on, before the teacher is sampled.

    Reads: table `questions`.
    """
    return rounds.check_student(RunContext.open(config, run_id))


@stage("Find missing samples")
def find_missing(config: RunConfig, run_id: str) -> int:
    """Count what the store lacks of K rationales a training question.

    Reads: table `questions`. Writes: what `teacher.reuse` holds, as parts of table `rationales`.
    """
    return sampling.find_missing(RunContext.open(config, run_id))


@stage("Sample teacher")
def sample_teacher(config: RunConfig, run_id: str) -> dict[str, Any]:
    """Sample what the store lacks of K rationales a training question.

    Reads: table `questions`. Writes: parts of table `rationales`.
    """
    with progress_artifact():
        return sampling.sample_teacher(RunContext.open(config, run_id))


@stage("Vote")
def vote(config: RunConfig, run_id: str) -> dict[str, float | None]:
    """Take the majority answer of each question.

    Reads: tables `questions`, `rationales`. Writes: tables `votes`, `metrics`.
    """
    context = RunContext.open(config, run_id)
    numbers = voting.vote_rationales(context)
    vote_artifacts(context)
    return numbers


@stage("Check votes")
def check_votes(config: RunConfig, run_id: str) -> None:
    """Refuse to train where the rationales were not sampled and voted on.

    Reads: whether table `votes` is there.
    """
    voting.check_votes(RunContext.open(config, run_id))


@stage("Make tokenizers")
def make_tokenizers(config: RunConfig, run_id: str) -> dict[str, Any]:
    """Publish the tokenizers of the student and of the discriminator.

    Reads: tables `questions`, `rationales`, `votes`.
    """
    return rounds.make_tokenizers(RunContext.open(config, run_id))
