"""What a host beside the first does: its ranks of each round, from the first to the last."""

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

logger = logging.getLogger(__name__)


def join_rounds(config: RunConfig) -> None:
    """Train with the first host until the last round is done.

    Between rounds the first host samples negatives and validates; this one waits.

    Args:
        config: The first host's configuration; store and scratch may lie elsewhere here.

    Raises:
        ConfigError: If `training.hosts` does not name this host after the first.
        TrainingError: If training was stopped, or the first host cannot be reached.
    """
    training = config.training
    place = own_place(training.hosts) if training.hosts else 0
    if place == 0:
        named = ", ".join(training.hosts) or "none"
        msg = (
            "training.hosts must name this host after the one that runs the flow; got "
            f"{named}. On the first host start the run itself."
        )
        raise ConfigError(msg)
    first, port = training.hosts[0], RENDEZVOUS_PORT
    payload = {"config": config.model_dump(mode="json"), "place": place}
    result = {"is_last_round": False}
    while not result["is_last_round"]:
        logger.info("Waiting for %s:%d to begin a round", first, port)
        wait_until_open(first, port, training.host_timeout_seconds)
        logger.info("Training with %s", first)
        target, log = "qcrd_core.training.train:join", config.run.scratch / "join.log"
        result = run_job(target, payload, log=log)
        if result["interrupted"]:
            msg = (
                "Training must end with its last step; it was stopped at step "
                f"{result['global_step']}. The checkpoint is kept: start the run and join again."
            )
            raise TrainingError(msg)
        wait_until_closed(first, port)
