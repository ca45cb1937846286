"""What all tasks have in common: they look in the store whether they are done, and try again."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from qcrd_core.errors import StoreAwayError

# After what the store's client tries by itself, ten seconds or half a minute.
_PAUSES_SECONDS = (10.0, 30.0, 90.0)

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def stage(
    name: str, run_name: str | None = None, *, retries: int = len(_PAUSES_SECONDS)
) -> Callable[[Callable[_Arguments, _Result]], Task[_Arguments, _Result]]:
    """Make a task of a function that may be called again: the store says what is done.

    It tries again, after growing pauses, where the store does not answer. Any other error is the
    user's to mend, or was retried where it happened: requests to the teacher, the local engine.

    Args:
        name: What the UI calls it, in plain words.
        run_name: Template of a run's name; `name` where that says it.
        retries: How often at most; 0 for a task that is the first to ask the store, so that a wrong
            address is told at once.

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
