"""Tasks before the first round: prepare the run, sample the teacher, vote.

A task takes references and returns one. What is done already is decided by the store, not by
Prefect's cache: every task may be started again.
"""

from qcrd_core.config.run import RunConfig
from qcrd_core.run.context import RunContext
from qcrd_core.stages import plan, rounds, sampling, voting
from tasks.artifacts import progress_artifact, vote_artifacts
from tasks.references import Checkpoint, Rationales, Run, Votes
from tasks.stage import stage


@stage("Prepare run", retries=0)
def prepare_run(config: RunConfig) -> Run:
    """Check the configuration and open the run's folder.

    Writes: config.yaml, dataset.json, table `questions`, environment.json.
    """
    planned = plan.plan_run(config)
    if not planned.is_complete:
        plan.begin_run(planned)
    return Run(config, planned.run_id)


@stage("Check student")
def check_student(run: Run) -> Run:
    """Refuse a student or questions that training would fail on, before the teacher is sampled.

    Reads: table `questions`.
    """
    rounds.check_student(run.context)
    return Run(run.config, run.run_id)


@stage("Find missing samples")
def find_missing(run: Run) -> Rationales:
    """Count what the store lacks of K rationales per training question, as `num_missing`.

    Reads: table `questions`. Writes: what `teacher.reuse` holds, as parts of table `rationales`.
    """
    counts = {"num_missing": sampling.find_missing(run.context)}
    return Rationales(run.config, run.run_id, counts)


@stage("Sample teacher")
def sample_teacher(run: Run, here: RunConfig | None = None) -> Rationales:
    """Sample what the store lacks of K rationales per training question.

    Reads: table `questions`. Writes: parts of table `rationales`.

    Args:
        run: The run.
        here: Its configuration with the places of another machine, if the task runs there.
    """
    with progress_artifact():
        counts = sampling.sample_teacher(RunContext.open(here or run.config, run.run_id))
    return Rationales(run.config, run.run_id, counts)


@stage("Vote")
def vote(rationales: Rationales) -> Votes:
    """Take the majority answer of each question, and decide which rationales are positive.

    Reads: tables `questions`, `rationales`. Writes: tables `votes`, `polarity`, `metrics`.
    """
    context = rationales.context
    numbers = voting.vote_rationales(context)
    vote_artifacts(context)
    return Votes(rationales.config, rationales.run_id, numbers)


@stage("Check votes")
def check_votes(run: Run) -> Votes:
    """Refuse to train before the rationales were sampled and voted on.

    Reads: whether tables `votes` and `polarity` are there.
    """
    voting.check_votes(run.context)
    return Votes(run.config, run.run_id, {})


@stage("Make tokenizers")
def make_tokenizers(votes: Votes) -> Checkpoint:
    """Publish the tokenizers of the student and of the discriminator.

    Reads: tables `questions`, `rationales`, `votes`, `polarity`.
    """
    rounds.make_tokenizers(votes.context)
    return Checkpoint(votes.config, votes.run_id, -1)
