"""Where the teacher is sampled and students write negatives: the setting `run.ray_address`.

local   in the run's own process, one after the other
ray     as tasks on a Ray cluster; see `flows.experimental.ray`
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tasks import rounds, teacher
from tasks.references import Checkpoint, Negatives, Rationales, Run


class Runner:
    """Does everything in the run's own process, one after the other."""

    def sample_teacher(self, run: Run) -> Rationales:
        """Sample the teacher's rationales that the store does not hold yet."""
        return teacher.sample_teacher(run)

    def begin_negatives(self, checkpoint: Checkpoint) -> None:
        """Start writing negatives with a round's student, if this runner does so during training.

        Args:
            checkpoint: The student that writes them.
        """

    def sample_negatives(self, checkpoint: Checkpoint, round_: int) -> Negatives:
        """Return when the negatives of a round are in the store.

        Args:
            checkpoint: The student that writes them.
            round_: The round that trains on them.

        Returns:
            A reference to the negatives.
        """
        return rounds.sample_negatives(checkpoint, round_)


@contextmanager
def open_runner(run: Run) -> Iterator[Runner]:
    """Open the runner that `run.ray_address` asks for, before any work begins.

    Args:
        run: The run.

    Yields:
        The runner. When the block ends, a connection to Ray is closed and its tasks end.

    Raises:
        ConfigError: If run.runner is ray, but Ray is not installed or no Prefect server is named
            that its nodes could reach.
        LaunchError: If the Ray cluster does not answer.
    """
    if run.config.run.ray_address is None:
        yield Runner()
        return
    from flows.experimental.ray import open_ray

    with open_ray(run.config) as runner:
        yield runner
