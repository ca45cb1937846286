"""Experimental: samplers, and negatives written during training, as tasks on a Ray cluster.

    round t:  train ─► validate ─► train t + 1 ... ─► score for round t + j
                └─► negatives of round t + j, on another worker ─┘

The tables equal those of a local run, text by text. When a node is lost, Ray starts its task again,
and the task continues with what the store lacks.
"""

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.settings import PREFECT_API_URL
from prefect.utilities.engine import collect_task_run_inputs_sync

from flows.runner import Runner
from qcrd_core.config.run import RunConfig
from qcrd_core.config.teacher import OneTeacher
from qcrd_core.errors import ConfigError, LaunchError, QcrdError
from qcrd_core.runtime.processes import has_accelerator
from qcrd_core.stages.rounds import rounds_waiting_for
from tasks import rounds, teacher
from tasks.references import Checkpoint, Negatives, Rationales, Run

if TYPE_CHECKING:
    from prefect_ray import RayTaskRunner
    from prefect_ray.task_runners import PrefectRayFuture

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0


class RayRunner(Runner):
    """Samplers and negatives as tasks on a Ray cluster.

    A result is passed on as the task's future, so that Prefect can draw the edge between the tasks.
    """

    def __init__(self, config: RunConfig, ray: "RayTaskRunner") -> None:
        """Submit nothing yet.

        Args:
            config: The run's configuration.
            ray: Connected to the cluster.
        """
        self._ray = ray
        self._num_samplers = config.run.num_samplers
        # Use the same kind of device that trains here; another kind would write other texts.
        self._num_gpus = int(has_accelerator())
        self._elsewhere = _for_any_node(config)
        self._negatives: dict[int, PrefectRayFuture[Any]] = {}

    def sample_teacher(self, run: Run) -> Rationales:
        """Sample with several tasks. A task that ends without an error has seen every shard stored.

        Args:
            run: The run.

        Returns:
            A reference to the rationales.
        """
        found = teacher.find_missing(run)
        if not found.counts["num_missing"]:
            return found
        parameters = {"run": run, "here": self._elsewhere}
        inputs = {"run": collect_task_run_inputs_sync(found)}
        futures = [
            self._ray.submit(teacher.sample_teacher, parameters, dependencies=inputs)
            for _ in range(self._num_samplers)
        ]
        for future in futures:
            future.wait()
        failed = [future for future in futures if not future.state.is_completed()]
        if len(failed) == len(futures):
            failed[0].result()
        for future in failed:
            logger.warning("A sampler failed; others did its work: %s", future.state.message)
        sampled: Any = next(future for future in futures if future not in failed)
        rationales: Rationales = sampled
        return rationales

    def begin_negatives(self, checkpoint: Checkpoint) -> None:
        """Submit the tasks that write negatives with a round's student."""
        for round_ in rounds_waiting_for(checkpoint.context, checkpoint.round):
            self._negatives[round_] = self._submit_negatives(checkpoint, round_)

    def sample_negatives(self, checkpoint: Checkpoint, round_: int) -> Negatives:
        """Wait for the negatives of a round, and write them here if the task on Ray failed."""
        future: Any = self._negatives.pop(round_, None)
        if future is not None:
            future.wait()
            if future.state.is_completed():
                negatives: Negatives = future
                return negatives
            error = future.state.result(raise_on_failure=False)
            if isinstance(error, QcrdError):
                raise error
            logger.warning(
                "Ray failed to write the negatives of round %d, so they are written here: %s",
                round_,
                error,
            )
        return super().sample_negatives(checkpoint, round_)

    def _submit_negatives(self, checkpoint: Checkpoint, round_: int) -> "PrefectRayFuture[Any]":
        from prefect_ray.context import remote_options

        parameters = {"checkpoint": checkpoint, "round_": round_, "here": self._elsewhere}
        inputs = {"checkpoint": collect_task_run_inputs_sync(checkpoint)}
        with remote_options(num_gpus=self._num_gpus):
            return self._ray.submit(rounds.sample_negatives, parameters, dependencies=inputs)


@contextmanager
def open_ray(config: RunConfig) -> Iterator[RayRunner]:
    """Connect to the cluster that `run.ray_address` names; see `flows.runner.open_runner`."""
    _check_ray()
    _check_address(str(config.run.ray_address))
    from prefect_ray import RayTaskRunner

    address = config.run.ray_address
    # Without an address, Prefect would start a cluster if none is running.
    options = {"log_to_driver": False, **({"address": address} if address == "auto" else {})}
    with ExitStack() as stack:
        try:
            ray = stack.enter_context(RayTaskRunner(address, options))
        except (OSError, RuntimeError) as error:
            raise _no_cluster(str(address), error) from error
        yield RayRunner(config, ray)


def _check_ray() -> None:
    absent = [name for name in ("ray", "prefect_ray") if find_spec(name) is None]
    if absent:
        msg = (
            f"run.ray_address needs the packages ray and prefect-ray; {absent[0]} is not "
            "installed. Run `pip install 'qcrd[ray]'`, or set run.ray_address=null."
        )
        raise ConfigError(msg)
    if PREFECT_API_URL.value() is None:
        msg = (
            "PREFECT_API_URL must name a Prefect server that the Ray nodes can reach, for example "
            "http://server:4200/api; it is not set. `qcrd up` starts one on this machine."
        )
        raise ConfigError(msg)


def _check_address(address: str) -> None:
    """Refuse an address where nothing listens, because Ray itself would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> LaunchError:
    detail = " ".join(str(error).split())[:200]
    return LaunchError(
        f"run.ray_address must be the address of a running Ray cluster; got {address} ({detail}). "
        "Start one with `ray start --head`, using the Ray and Python of this environment."
    )


def _for_any_node(config: RunConfig) -> RunConfig:
    """Make paths absolute, because processes on a node start in another folder.

    `teacher.reuse` is emptied: its rationales are in the store by then.
    """
    run, teacher_ = config.run, config.teacher
    places: dict[str, str | Path] = {"scratch": run.scratch.absolute()}
    if "://" not in run.store:
        places["store"] = str(Path(run.store).absolute())
    others = tuple(one.model_copy(update=_anywhere(one)) for one in teacher_.others)
    changes = {
        "run": run.model_copy(update=places),
        "teacher": teacher_.model_copy(update={**_anywhere(teacher_), "others": others}),
    }
    return config.model_copy(update=changes)


def _anywhere(teacher_: OneTeacher) -> dict[str, Any]:
    endpoints = teacher_.endpoints
    return {
        "endpoints": endpoints.absolute() if isinstance(endpoints, Path) else endpoints,
        "reuse": (),
    }
