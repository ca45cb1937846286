"""Joins training as an additional host: runs this host's ranks of every round."""

import logging

from qcrd_core.config.run import RunConfig
from qcrd_core.errors import ConfigError, TrainingError
from qcrd_core.runtime.hosts import (
    RENDEZVOUS_PORT,
    own_place,
    wait_until_closed,
    wait_until_open,
)
from qcrd_core.runtime.processes import run_job
from qcrd_core.training.jobs import JoinRound, join_round

logger = logging.getLogger(__name__)


def join_rounds(config: RunConfig) -> None:
    """Train with the first host until the last round is done.

    Between rounds, the first host samples negatives and validates, and this host waits.

    Args:
        config: The first host's configuration; store and scratch may have other paths here.

    Raises:
        ConfigError: If `training.hosts` does not name this host after the first.
        TrainingError: If training was interrupted, or the first host cannot be reached.
    """
    training = config.training
    place = own_place(training.hosts) if training.hosts else 0
    if place == 0:
        named = ", ".join(training.hosts) or "none"
        msg = (
            "training.hosts must name this host after the one that runs the flow; got "
            f"{named}. On the first host, start the run itself."
        )
        raise ConfigError(msg)
    first, port = training.hosts[0], RENDEZVOUS_PORT
    is_last_round = False
    while not is_last_round:
        logger.info("Waiting for the first host, %s:%d, to begin a round", first, port)
        wait_until_open(first, port, training.host_timeout_seconds)
        logger.info("Training with %s", first)
        log = config.run.scratch / "join.log"
        trained = run_job(join_round, JoinRound(config, place), log=log).value
        if trained.interrupted:
            msg = (
                f"Training was interrupted at step {trained.global_step}. The checkpoint is saved; "
                "start the run and join it again to resume."
            )
            raise TrainingError(msg)
        is_last_round = trained.is_last_round
        wait_until_closed(first, port)
