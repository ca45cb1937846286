"""Tasks of the rounds, and the task that ends the run.

Each owns a child process, so flows call it directly. If it were submitted, Prefect would not end
the child when the flow is cancelled.
"""

from collections.abc import Sequence

from qcrd_core.config.run import RunConfig
from qcrd_core.report.run_page import run_page
from qcrd_core.run.context import RunContext
from qcrd_core.stages import rounds
from tasks.artifacts import (
    learning_curve_artifact,
    progress_artifact,
    report_artifact,
    scores_artifact,
)
from tasks.references import Checkpoint, Negatives, Scores, Student, Validation, Votes
from tasks.stage import stage


@stage("Sample negatives", "Sample negatives of round {round_}")
def sample_negatives(
    checkpoint: Checkpoint, round_: int, here: RunConfig | None = None
) -> Negatives:
    """Write a round's negatives with the student of an earlier round.

    Reads: table `questions`, the student. Writes: tables `rationales`, `metrics`.

    Args:
        checkpoint: The student of round t - j.
        round_: t, the round that trains on them.
        here: The run's configuration with paths of another machine, if the task runs there.
    """
    context = RunContext.open(here or checkpoint.config, checkpoint.run_id)
    with progress_artifact():
        rounds.sample_negatives(context, round_, checkpoint.round)
    return Negatives(checkpoint.config, checkpoint.run_id, round_)


@stage("Score rationales", "Score rationales for round {round_}")
def score_rationales(
    round_: int, votes: Votes, negatives: Negatives | None, discriminator: Scores | None
) -> Scores:
    """Train the discriminator, and score every candidate rationale with it.

    Reads: tables `questions`, `rationales`, `polarity`. Writes: tables `scores`, `metrics`.

    Args:
        round_: The round that trains on the scores.
        votes: The run's vote.
        negatives: The student's negatives for this round; None if there are none.
        discriminator: Scores of the previous round, whose discriminator is trained further; None in
            the first round.
    """
    del negatives, discriminator  # read from the store; passed so that the graph shows the edges
    context = votes.context
    with progress_artifact():
        numbers = rounds.score_rationales(context, round_)
    if numbers:  # empty if an earlier start of the run has done and shown this
        scores_artifact(context, round_)
    return Scores(votes.config, votes.run_id, round_)


@stage("Train student", "Train round {scores.round}")
def train_round(scores: Scores, checkpoint: Checkpoint) -> Checkpoint:
    """Train the student for one round with DeepSpeed.

    Reads: tables `questions`, `scores`, `votes`. Writes: a checkpoint, table `metrics`.

    Args:
        scores: The round's rationales with their weights.
        checkpoint: The student of the previous round.
    """
    del checkpoint  # read from the store; passed so that the graph shows the edge
    with progress_artifact():
        rounds.train_round(scores.context, scores.round)
    return Checkpoint(scores.config, scores.run_id, scores.round)


@stage("Validate", "Validate round {checkpoint.round}")
def validate(checkpoint: Checkpoint) -> Validation:
    """Evaluate the round's student on validation, then delete checkpoints no longer needed.

    Reads: table `questions`. Writes: tables `predictions`, `metrics`.
    """
    context = checkpoint.context
    with progress_artifact():
        numbers = rounds.evaluate(context, "validation", checkpoint.round)
    if numbers:
        learning_curve_artifact(context)
    rounds.prune(context, checkpoint.round)
    return Validation(checkpoint.config, checkpoint.run_id, checkpoint.round)


@stage("Test and report")
def finish(validations: Sequence[Validation]) -> Student:
    """Test the best student once, publish it and write the report.

    Reads: all tables of the run. Writes: tables `predictions`, `metrics`, the student, report.html.

    Args:
        validations: The validations of all rounds.
    """
    last = validations[-1]
    context = last.context
    with progress_artifact():
        result = rounds.finish(context)
    report_artifact(context, run_page(context.store, last.run_id))
    return Student(last.config, last.run_id, result)
