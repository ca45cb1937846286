"""The training job of a round: what each host is given, and what comes back.

The stages import this module, so it loads no engine; the functions import theirs in the child.
"""

from dataclasses import dataclass
from pathlib import Path

from qcrd_core.config.run import RunConfig
from qcrd_core.run.context import RunJob
from qcrd_core.runtime.processes import Emit


@dataclass(frozen=True)
class TrainRound(RunJob):
    """One round, as the first of `training.hosts` or alone."""

    round: int
    """The round."""
    labels: Path
    """Parquet file of question_id, question, label: one row per training question."""


@dataclass(frozen=True)
class JoinRound:
    """The round that the first host begins, as another host."""

    config: RunConfig
    """The settings here; store and scratch may lie elsewhere than on the first host."""
    place: int
    """This host's place among `training.hosts`, at least 1."""


@dataclass(frozen=True)
class Trained:
    """How a training job ended."""

    interrupted: bool
    """Stopped by SIGTERM after a checkpoint, before the round's last step."""
    global_step: int
    """Optimiser steps of all rounds so far."""
    loss: float | None = None
    """Loss of the last step; None if the job had no step to take."""
    is_last_round: bool = False
    """Whether no round follows."""


def train_round(job: TrainRound, emit: Emit) -> Trained:
    """Run `qcrd_core.training.train.train_round`."""
    from qcrd_core.training import train

    return train.train_round(job, emit)


def join_round(job: JoinRound, emit: Emit) -> Trained:
    """Run `qcrd_core.training.train.join_round`."""
    from qcrd_core.training import train

    return train.join_round(job, emit)
