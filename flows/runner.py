"""Where a run does what need not be done in its own process: the setting `run.ray_address`.

local   in the run's own process, one after the other
ray     tasks on a Ray cluster, see `flows.experimental.ray`
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tasks import rounds, teacher
from tasks.references import Checkpoint, Negatives, Rationales, Run


class Runner:
    """Everything in the run's own process, one after the other."""

    def sample_teacher(self, run: Run) -> Rationales:
        """Sample what the store lacks of the teacher's rationales."""
        return teacher.sample_teacher(run)

    def begin_negatives(self, checkpoint: Checkpoint) -> None:
        """Let a round's student begin to write negatives, if that goes beside training."""

    def sample_negatives(self, checkpoint: Checkpoint, round_: int) -> Negatives:
        """Come back when the negatives of a round are there.

        Args:
            checkpoint: The student that writes them.
            round_: The round that trains on them.

        Returns:
            The negatives.
        """
        return rounds.sample_negatives(checkpoint, round_)


@contextmanager
def open_runner(run: Run) -> Iterator[Runner]:
    """Make ready what `run.ray_address` names, before any work.

    Args:
        run: The run.

    Yields:
        The runner; a connection to Ray ends with the block, and its tasks with it.

    Raises:
        ConfigError: If Ray is to be used and is not installed, or there is no Prefect server that
            its nodes could reach.
        LaunchError: If the cluster does not answer.
    """
    if run.config.run.ray_address is None:
        yield Runner()
        return
    from flows.experimental.ray import open_ray

    with open_ray(run.config) as runner:
        yield runner
