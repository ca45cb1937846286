"""Tasks of the rounds, and of the end.

Each owns a child process, so it is called directly: in a submitted task Prefect would not end the
child when the flow is cancelled.
"""

from typing import Any

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
from tasks.stage import stage


@stage("Sample negatives", "Sample negatives of round {round_}")
def sample_negatives(config: RunConfig, run_id: str, round_: int) -> dict[str, Any]:
    """Let an earlier round's student write this round's negatives.

    Reads: table `questions`, the student of round t - j. Writes: tables `rationales`, `metrics`.
    """
    with progress_artifact():
        return rounds.sample_negatives(RunContext.open(config, run_id), round_)


@stage("Score rationales", "Score rationales for round {round_}")
def score_rationales(config: RunConfig, run_id: str, round_: int) -> dict[str, Any]:
    """Teach the discriminator and let it score every candidate rationale.

    Reads: tables `questions`, `rationales`, `votes`. Writes: tables `scores`, `metrics`.
    """
    context = RunContext.open(config, run_id)
    with progress_artifact():
        numbers = rounds.score_rationales(context, round_)
    if numbers:  # else an earlier start of the run has shown it
        scores_artifact(context, round_)
    return numbers


@stage("Train student", "Train round {round_}")
def train_round(config: RunConfig, run_id: str, round_: int) -> dict[str, Any]:
    """Train the student for one round with DeepSpeed.

    Reads: tables `questions`, `scores`, `votes`. Writes: a checkpoint, table `metrics`.
    """
    with progress_artifact():
        return rounds.train_round(RunContext.open(config, run_id), round_)


@stage("Validate", "Validate round {round_}")
def validate(config: RunConfig, run_id: str, round_: int) -> dict[str, Any]:
    """Measure the round's student on validation, then drop checkpoints nobody needs any more.

    Reads: table `questions`. Writes: tables `predictions`, `metrics`.
    """
    context = RunContext.open(config, run_id)
    with progress_artifact():
        numbers = rounds.evaluate(context, "validation", round_)
    if numbers:
        learning_curve_artifact(context)
    rounds.prune(context, round_)
    return numbers


@stage("Test and report")
def finish(config: RunConfig, run_id: str) -> dict[str, Any]:
    """Test the best student once, publish it and write the report.

    Reads: all of the run. Writes: tables `predictions`, `metrics`, the student, report.html.
    """
    context = RunContext.open(config, run_id)
    with progress_artifact():
        result = rounds.finish(context)
    report_artifact(run_page(context.store, run_id))
    return result
