"""What all tasks have in common: the store says whether they are done, and they are retried."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from qcrd_core.errors import StoreAwayError

# These follow the retries of the store's client, which take ten to thirty seconds.
_PAUSES_SECONDS = (10.0, 30.0, 90.0)

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def stage(
    name: str, run_name: str | None = None, *, retries: int = len(_PAUSES_SECONDS)
) -> Callable[[Callable[_Arguments, _Result]], Task[_Arguments, _Result]]:
    """Turn a function that may be called repeatedly into a task. The store says what is done.

    The task is retried, after growing pauses, only if the store does not answer. Any other error
    needs the user, or was already retried where it happened (requests to the teacher, the local
    engine).

    Args:
        name: The task's name in the UI, in plain words.
        run_name: Template of a task run's name. By default `name`.
        retries: Greatest number of retries. 0 for the first task that uses the store, so that a
            wrong address is reported at once.

    Returns:
        A decorator.
    """
    return task(
        name=name,
        task_run_name=run_name or name,
        cache_policy=NO_CACHE,
        retries=retries,
        retry_delay_seconds=list(_PAUSES_SECONDS[:retries]),
        retry_condition_fn=_is_away,
    )


def _is_away(_: Task[Any, Any], __: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, StoreAwayError)
