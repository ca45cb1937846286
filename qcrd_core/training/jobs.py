"""Training jobs: the inputs and the result of each host in a round.

The stages import this module, so it loads no engine; the functions import it in the child process.
"""

from dataclasses import dataclass
from pathlib import Path

from qcrd_core.config.run import RunConfig
from qcrd_core.run.context import RunJob
from qcrd_core.runtime.processes import Emit


@dataclass(frozen=True)
class TrainRound(RunJob):
    """Training one round on the first of `training.hosts`, or on a single host."""

    round: int
    """The round."""
    labels: Path
    """Parquet file of question_id, question, label: one row per training question."""


@dataclass(frozen=True)
class JoinRound:
    """Training, on another host, the round that the first host has begun."""

    config: RunConfig
    """This host's settings; store and scratch may have other paths than on the first host."""
    place: int
    """This host's place among `training.hosts`, at least 1."""


@dataclass(frozen=True)
class Trained:
    """Result of a training job."""

    interrupted: bool
    """Whether SIGTERM stopped it before the round's last step; a checkpoint was saved."""
    global_step: int
    """Optimiser steps of all rounds so far."""
    loss: float | None = None
    """Loss of the last step; None if the job took no step."""
    is_last_round: bool = False
    """Whether this was the run's last round."""


def train_round(job: TrainRound, emit: Emit) -> Trained:
    """Run `qcrd_core.training.train.train_round`."""
    from qcrd_core.training import train

    return train.train_round(job, emit)


def join_round(job: JoinRound, emit: Emit) -> Trained:
    """Run `qcrd_core.training.train.join_round`."""
    from qcrd_core.training import train

    return train.join_round(job, emit)
