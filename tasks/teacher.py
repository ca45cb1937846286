"""Tasks before the first round: prepare the run, sample the teacher, vote, condense.

A task takes references and returns one. The store decides what is already done, not Prefect's
cache, so every task may be started again.
"""

from qcrd_core.config.run import RunConfig
from qcrd_core.run.context import RunContext
from qcrd_core.stages import condensing, plan, rounds, sampling, voting
from tasks.artifacts import condense_artifact, progress_artifact, vote_artifacts
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
    """Check before sampling that training can work with this student and these questions.

    Reads: table `questions`.
    """
    rounds.check_student(run.context)
    return Run(run.config, run.run_id)


@stage("Find missing samples")
def find_missing(run: Run) -> Rationales:
    """Count how many of K rationales per training question the store lacks, as `num_missing`.

    Reads: table `questions`. Writes: rationales from `teacher.reuse` to table `rationales`.
    """
    counts = {"num_missing": sampling.find_missing(run.context)}
    return Rationales(run.config, run.run_id, counts)


@stage("Sample teacher")
def sample_teacher(run: Run, here: RunConfig | None = None) -> Rationales:
    """Sample K rationales per training question, except those that the store already holds.

    Reads: table `questions`. Writes: parts of table `rationales`.

    Args:
        run: The run.
        here: The run's configuration with paths of another machine, if the task runs there.
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


@stage("Condense rationales")
def condense(votes: Votes) -> Votes:
    """Have the rationales that are too long for the student written again, within a limit.

    Reads: tables `questions`, `rationales`, `polarity`. Writes: parts of table `rationales` below
    datasets/<name>/condensed, the tokenizers, tables `condensed`, `metrics`.
    """
    context = votes.context
    with progress_artifact():
        numbers = condensing.condense_rationales(context)
    condense_artifact(context)
    return Votes(votes.config, votes.run_id, {**votes.counts, **numbers})


@stage("Check votes")
def check_votes(run: Run) -> Votes:
    """Check that the rationales were sampled, voted on and, if it is asked for, condensed.

    Reads: whether tables `votes`, `polarity` and `condensed` exist.
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
